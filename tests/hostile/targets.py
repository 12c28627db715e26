"""Every parser of edgezo behind one call on bytes, with valid files to start from.

A target may raise `EdgezoError`; whatever else comes out is a finding. Checksums are switched off:
they protect from disks, and a stranger computes them as well as we do.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from edgezo_runtime.adapters.adapter import load_adapter, make_adapter
from edgezo_runtime.adapters.peft_reader import read_peft, start_from_peft
from edgezo_runtime.adapters.peft_writer import peft_content
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.bundle.onnx_file import check_onnx
from edgezo_runtime.bundle.weights import WeightsFile
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.chat.turns import TurnFinder
from edgezo_runtime.data.choices import load_choices
from edgezo_runtime.data.files.folders import resolve
from edgezo_runtime.data.questions import load_questions
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.template import Template
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import EdgezoError
from edgezo_runtime.journal import journal_header as header_module
from edgezo_runtime.journal import snapshot as snapshot_module
from edgezo_runtime.journal.evaluation_record import read_evaluations
from edgezo_runtime.journal.example_log import ExampleLog
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.journal_header import JournalHeader
from edgezo_runtime.journal.run_header import RunHeader
from edgezo_runtime.journal.snapshot import load_snapshot, save_snapshot
from edgezo_runtime.journal.step_record import StepRecord
from edgezo_runtime.methods.catalogue import METHODS, assemble, method_config
from edgezo_runtime.methods.estimators import Probe
from edgezo_runtime.methods.rates import Rates
from edgezo_runtime.system import framing as framing_module
from edgezo_runtime.system.safetensors_writer import write_tensors
from edgezo_runtime.training.best_adapter import best_of
from edgezo_runtime.training.trajectory import Trajectory
from tests.estimator_runs import run_estimator
from tests.hostile.feedback_records import feedback_records, read_feedback_record
from tests.hostile.onnx_bytes import VALID
from tests.hostile.seed_texts import (
    ARRAYS,
    CALLS,
    CHATS,
    CHOICES,
    CONFIGS,
    EVALUATIONS,
    MESSAGES,
    PACKED,
    PEFT_CONFIGS,
    ROWS,
    SAVED,
    TABLES,
    TOOLS,
)
from tests.hostile.tokenizer_files import tokenizer_files
from tests.runtime.tiny_bundle import write_bundle
from tests.runtime.tiny_sets import random_set
from tests.runtime.tiny_tokenizer import CHAT, byte_tokenizer

Float32 = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser.

    Attributes:
        run: reads bytes; an `EdgezoError` is how it refuses them.
        seeds: valid files.
        share: of all executions; fewer for what is slow.
    """

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    share: float = 1.0


def execute(target: Target, data: bytes) -> bool:
    """Give a target some bytes; True if it took them.

    Raises:
        BaseException: a finding.
    """
    with np.errstate(all="ignore"):
        try:
            target.run(data)
        except EdgezoError:
            return False
    return True


@contextlib.contextmanager
def all_targets() -> Iterator[dict[str, Target]]:
    """The targets by name; they share a folder where temporary files go."""
    zero = SimpleNamespace(crc32=lambda data, before=0: 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(framing_module, "zlib", zero),
        patch.object(header_module, "zlib", zero),
        patch.object(snapshot_module, "zlib", zero),
    ):
        yield _Workshop(Path(folder)).targets()


class _Workshop:
    """Makes valid files, and the functions that read changed ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = Bundle.open(write_bundle(folder / "bundle"))
        self.tokenizer = byte_tokenizer(chat_template=CHAT)
        self.set = random_set("labels", (4, 3, 5, 6), 0)
        self.trajectories = [
            Trajectory(self.bundle, method_config(method, batch_size=2, blocks="all"), 4)
            for method, content in METHODS.items()
            if content.scheme is None and not content.feedback
        ]
        self.file = folder / "input"

    def targets(self) -> dict[str, Target]:
        """All of them."""
        return {
            "manifest": Target(self._manifest, (self._manifest_text(),)),
            "bundle": Target(self._bundle, (self._manifest_text(),), 0.2),
            "weights": Target(self._weights, self._tensor_files()),
            "trainables": Target(self._trainables, self._tensor_files()),
            "snapshot": Target(self._snapshot, (self._snapshot_bytes(),), 0.3),
            "adapter": Target(self._adapter, self._adapters()),
            "peft": Target(self._peft, self._peft_files()),
            "peft_config": Target(self._peft_config, PEFT_CONFIGS),
            "journal": Target(self._journal, (self._journal_bytes(),)),
            "record": Target(_record, self._records()),
            "feedback": Target(read_feedback_record, feedback_records()),
            "examples": Target(self._examples, (self._examples_bytes(),)),
            "evaluations": Target(self._evaluations, EVALUATIONS),
            "replay": Target(self._replay, self._replays(), 0.2),
            "header": Target(self._header, self._headers(), 0.2),
            "onnx": Target(lambda data: check_onnx(data, "graph.onnx"), VALID),
            "tokenizer": Target(self._tokenizer, tokenizer_files(self.tokenizer), 0.1),
            "chat": Target(self._chat, CHATS, 0.1),
            "rows": Target(self._rows, ROWS, 0.3),
            "questions": Target(self._questions, ROWS, 0.3),
            "choices": Target(self._choices, (CHOICES,), 0.3),
            "array": Target(self._data_file("f.json"), ARRAYS, 0.3),
            "table": Target(self._data_file("f.csv"), TABLES, 0.3),
            "packed": Target(self._data_file("f.gz"), PACKED, 0.3),
            "parquet": Target(self._data_file("f.parquet"), _case("parquet"), 0.1),
            "arrow": Target(self._data_file("f.arrow"), _case("arrow"), 0.1),
            "saved": Target(self._saved, SAVED),
            "template": Target(_template, (b"{sentence} It was", b"{{a}} {b}{c}")),
            "config": Target(self._config, CONFIGS),
            "toml": Target(self._toml, (b'lr = 0.5\nmethod = "zo-sgd"\n[x]\n', b"seed = 3")),
            "task": Target(self._task, (b'{"template": "{a}", "labels": [" x", " y"]}',)),
        }

    def _keep(self, data: bytes, name: str = "input") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    # --- bundles ---

    def _manifest_text(self) -> bytes:
        return (self.bundle.root / "manifest.json").read_bytes()

    def _manifest(self, data: bytes) -> None:
        Manifest.from_json(data.decode("utf-8", "replace")).to_json()

    def _bundle(self, data: bytes) -> None:
        path = self.bundle.root / "manifest.json"
        before = path.read_bytes()
        path.write_bytes(data)
        try:
            Bundle.open(self.bundle.root).trainables()
        finally:
            path.write_bytes(before)

    def _tensor_files(self) -> tuple[bytes, ...]:
        tensors = {"a": np.ones((3, 2), np.float32), "b": np.zeros(8, np.int8)}
        write_tensors(self.file, tensors, {"k": "v"})
        return self.file.read_bytes(), (self.bundle.root / "trainable.safetensors").read_bytes()

    def _weights(self, data: bytes) -> None:
        weights = WeightsFile(self._keep(data))
        for name, stored in weights.tensors.items():
            weights.view(name, stored.dtype.name, stored.shape).sum()

    def _trainables(self, data: bytes) -> None:
        path = self.bundle.root / "trainable.safetensors"
        before = path.read_bytes()
        path.write_bytes(data)
        try:
            self.bundle.trainables()
        finally:
            path.write_bytes(before)

    # --- runs ---

    def _snapshot_bytes(self) -> bytes:
        state = self._named("zo-adam").state
        save_snapshot(self.file, state.snapshot("d"))
        return self.file.read_bytes()

    def _named(self, method: str) -> Trajectory:
        return next(
            trajectory for trajectory in self.trajectories if trajectory.settled.method == method
        )

    def _snapshot(self, data: bytes) -> None:
        snapshot = load_snapshot(self._keep(data))
        trajectory = self._named("zo-adam")
        trajectory.begin()
        trajectory.state.restore(snapshot)
        trajectory.state.apply(_step(snapshot.step, np.ones((2, 1))), [])

    def _adapters(self) -> tuple[bytes, ...]:
        tensors = self.bundle.trainables()
        made = make_adapter(
            self.file, self.bundle, tensors, steps=3, created_by="edgezo", scope="all"
        )
        made.save(self.file)
        seeds = [self.file.read_bytes()]
        for kind, names in _OTHER_ADAPTERS.items():
            info = json.loads(_adapter_text(seeds[0]))
            info["scheme"] = {"kind": kind, "rank": 2, "alpha": 2.0, "tokens": [1, 2]}
            arrays = {name: np.ones(shape, np.float32) for name, shape in names.items()}
            write_tensors(self.file, arrays, {"edgezo_adapter": json.dumps(info)})
            seeds.append(self.file.read_bytes())
        return tuple(seeds)

    def _adapter(self, data: bytes) -> None:
        adapter = load_adapter(self._keep(data))
        adapter.differences(self.bundle)
        with contextlib.suppress(EdgezoError):
            adapter.params(self.bundle)
        peft_content(adapter)

    def _peft_files(self) -> tuple[bytes, ...]:
        tensors = {
            f"base_model.model.layers.{block}.q.lora_{part}.weight": np.ones(shape, dtype)
            for block, dtype in ((0, np.float32), (1, np.float16))
            for part, shape in (("A", (2, 8)), ("B", (6, 2)))
        }
        write_tensors(self.file, tensors, {"format": "pt"})
        content = self.file.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = content[8:end].replace(b'"F16"', b'"BF16"')
        return content, len(header).to_bytes(8, "little") + header + content[end:]

    def _peft(self, data: bytes) -> None:
        """Weights beside a configuration that is right."""
        self._peft_config(PEFT_CONFIGS[0], data)

    def _peft_config(self, data: bytes, weights: bytes | None = None) -> None:
        folder = self.folder / "peft"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_bytes(data)
        content = self._peft_files()[0] if weights is None else weights
        (folder / "adapter_model.safetensors").write_bytes(content)
        adapter = start_from_peft(read_peft(folder), self.bundle, self.file, created_by="edgezo")
        adapter.params(self.bundle)
        adapter.save(self.file)

    def _header_of(self, trajectory: Trajectory, method: str) -> dict[str, Any]:
        config = method_config(method, batch_size=2, blocks="all")
        header = RunHeader(config, {"a": "b"}, "c", "d", 4, "all", (), Rates(0.1, 0.01))
        return header.as_json()

    def _journal_bytes(self) -> bytes:
        meta = self._header_of(self.trajectories[0], "zo-sgd")
        records = b""
        for step in range(3):
            body = b"\0" + _step(step, np.ones((2, 1))).pack()
            records += b"\xe2" + len(body).to_bytes(4, "little") + bytes(4) + body
        return JournalHeader(meta).pack() + records

    def _journal(self, data: bytes) -> None:
        found = read_journal(self._keep(data))
        RunHeader.read(found.header.meta, self.file)
        for record in found.records:
            record.pack()

    def _examples_bytes(self) -> bytes:
        self.file.unlink(missing_ok=True)
        log = ExampleLog(self.file, "run", self.set.first(1), 97)
        log.append(self.set.examples[1:3], 4)
        log.append(self.set.examples[3:], 6)
        log.close()
        return self.file.read_bytes()

    def _examples(self, data: bytes) -> None:
        log = ExampleLog(self._keep(data), "run", self.set.first(1), 97)
        log.examples.lengths()
        log.count_at(5)

    def _evaluations(self, data: bytes) -> None:
        found = read_evaluations(self._keep(data))
        assert found is not None
        found.write(self.file)
        if read_evaluations(self.file) != found:
            raise AssertionError("evaluations that are not what was written")
        best_of(found.until(2).records)

    def _headers(self) -> tuple[bytes, ...]:
        return tuple(
            json.dumps(self._header_of(trajectory, trajectory.settled.method)).encode()
            for trajectory in self.trajectories
        )

    def _header(self, data: bytes) -> None:
        journal = JournalHeader({})
        content = journal.pack()[:12] + len(data).to_bytes(4, "little") + data + bytes(4)
        meta = read_journal(self._keep(content)).header.meta
        header = RunHeader.read(meta, self.file)
        trajectory = Trajectory(self.bundle, header.config, header.rows)
        trajectory.use(header.rates)
        trajectory.replay(_fitting(trajectory, _step(0, np.ones((2, 1)))))

    def _records(self) -> tuple[bytes, ...]:
        wide = StepRecord(2, 9, 0.1, (0, 1, 7), np.ones((2, 2)), b"\x01\x02\x03\x04\x09")
        return _step(0, np.ones((2, 1))).pack(), wide.pack()

    def _replays(self) -> tuple[bytes, ...]:
        """Number of a method, then a record with the losses that it asks for."""
        found: list[bytes] = []
        for number, trajectory in enumerate(self.trajectories):
            asked: list[Float32] = []

            def evaluate(probes: list[Probe], asked: list[Float32] = asked) -> Float32:
                rows = 2 if probes[0].private else 1
                asked.append(np.linspace(1, 2, len(probes) * rows).reshape(-1, rows))
                return asked[-1]

            blocks = trajectory.layout.active(0)
            info = trajectory.layout.info(0, blocks, 0.1)
            run_estimator(assemble(trajectory.settled, 0.01).estimator, info, evaluate)
            record = StepRecord(0, info.seed, 0.1, blocks, np.concatenate(asked), bytes(4))
            found.append(bytes([number]) + record.pack())
        return tuple(found)

    def _replay(self, data: bytes) -> None:
        trajectory = self.trajectories[(data[0] if data else 0) % len(self.trajectories)]
        trajectory.begin()
        trajectory.replay(_fitting(trajectory, StepRecord.unpack(data[1:])))
        trajectory.state.adapter()

    # --- text ---

    def _tokenizer(self, data: bytes) -> None:
        self._keep(data, "tokenizer.json")
        settings = self.bundle.manifest.tokenizer
        made = TextTokenizer.open(self.folder, settings, vocab_size=50)
        ids = made.encode("a ab hello\u00fc", add_special=True)
        made.decode([*ids, 3])
        made.token_text(1)

    def _chat(self, data: bytes) -> None:
        source = data.decode("utf-8", "replace")
        finder = TurnFinder(byte_like(self.tokenizer, source))
        finder.find(MESSAGES, None, "row 1")
        finder.find(CALLS, TOOLS, "row 1")

    def _rows(self, data: bytes) -> None:
        path = self._keep(data, "rows.jsonl")
        load_examples(path, self.tokenizer, max_seq=16)
        load_examples(path, self.tokenizer, template="{text} It", labels=(" a", " b"), max_seq=16)

    def _questions(self, data: bytes) -> None:
        path = self._keep(data, "rows.jsonl")
        for template in ("{prompt} ?", None):
            with contextlib.suppress(EdgezoError):
                load_questions(path, self.tokenizer, template=template, max_seq=16)
        load_questions(path, self.tokenizer, max_seq=16)

    def _choices(self, data: bytes) -> None:
        path = self._keep(data, "rows.jsonl")
        load_choices(path, self.tokenizer, template="{text} It", field="choices", max_seq=16)

    def _data_file(self, name: str) -> Callable[[bytes], None]:
        """Reads a file by its format, then its rows by their fields."""

        def read(data: bytes) -> None:
            load_examples(self._keep(data, name), self.tokenizer, max_seq=16)

        return read

    def _saved(self, data: bytes) -> None:
        folder = self.folder / "saved"
        (folder / "train").mkdir(parents=True, exist_ok=True)
        (folder / "train" / "rows").write_bytes(ROWS[0])
        (folder / "train" / "state.json").write_bytes(data)
        (folder / "dataset_dict.json").write_bytes(data)
        resolve(folder)

    def _config(self, data: bytes) -> None:
        from edgezo.cli.settings.config_file import read_config

        read_config(self._keep(data, "config.json"), (TuneConfig,))

    def _toml(self, data: bytes) -> None:
        from edgezo.cli.settings.config_file import read_config

        read_config(self._keep(data, "config.toml"), (TuneConfig,))

    def _task(self, data: bytes) -> None:
        from edgezo.cli.files.task_data import read_task

        self._keep(data, "task.json")
        template, labels = read_task(self.folder)
        if template is not None:
            Template.parse(template)
        "".join(labels)


def _case(kind: str) -> tuple[bytes, ...]:
    """The small files of a format, and with them those that pyarrow needs."""
    folder = Path(__file__).parents[1] / "cases" / "data"
    return tuple(file.read_bytes() for file in sorted(folder.rglob(f"*.{kind}")))


def byte_like(tokenizer: TextTokenizer, source: str) -> TextTokenizer:
    """The same tokenizer with another chat template."""
    return TextTokenizer(tokenizer.core, pad_id=0, bos_id=1, eos_ids=(2,), chat_template=source)


def _record(data: bytes) -> None:
    record = StepRecord.unpack(data)
    if StepRecord.unpack(record.pack()) != record:
        raise AssertionError("a record that is not what it is packed as")


def _template(data: bytes) -> None:
    template = Template.parse(data.decode("utf-8", "replace"))
    template.render(template.values({"sentence": "s", "b": "x", "c": ""}, "row 1"))


def _step(step: int, losses: Float32) -> StepRecord:
    return StepRecord(step, 7, 0.1, (0, 1), losses, b"\0\0\0\0")


def _fitting(trajectory: Trajectory, record: StepRecord) -> StepRecord:
    """The record with the seed of its step, which is as good as a checksum."""
    seed = trajectory.layout.info(record.step, record.blocks, record.lr).seed
    return dataclasses.replace(record, seed=seed)


def _adapter_text(data: bytes) -> str:
    length = int.from_bytes(data[:8], "little")
    text: str = json.loads(data[8 : 8 + length])["__metadata__"]["edgezo_adapter"]
    return text


_OTHER_ADAPTERS: dict[str, dict[str, tuple[int, ...]]] = {
    "lora-xs": {"m.lora_A": (2, 4), "m.lora_R": (2, 2), "m.lora_B": (3, 2)},
    "ia3": {"a.gain": (4,), "b.input_gain": (3,)},
    "prompt": {"m.prompt": (2, 4), "m.prompt_base": (2, 4)},
    "prefix": {
        f"layers.{block}.prefix_{half}": (1, 2, 4) for block in (0, 1) for half in ("key", "value")
    },
    "tt": {"m.tt_down_0": (1, 2, 2), "m.tt_up_0": (2, 2, 1)},
}
