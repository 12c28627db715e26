"""Exports that were killed go on where they were, and make the same bytes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.sources.model_source import Source, open_source
from edgezo_export.unfinished import Unfinished, check_output, restore, unfinished
from edgezo_runtime.bundle.manifest import FORMAT
from edgezo_runtime.errors import UsageError

CONFIGS = {
    "int8": ExportConfig(quant="int8"),
    "w4": ExportConfig(quant="w4", group_size=16, calibration_rows=2),
}


class Interrupted:
    """A checkpoint that is interrupted at a read of its rows; counts the reads."""

    def __init__(self, checkpoint, after: int = 1 << 60):
        self._checkpoint = checkpoint
        self._left = after
        self.reads: list[str] = []

    def __getattr__(self, name):
        return getattr(self._checkpoint, name)

    def read_rows(self, name: str, start: int, stop: int):
        self.reads.append(name)
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._checkpoint.read_rows(name, start, stop)


def reading(model, after: int = 1 << 60) -> tuple[Source, Interrupted]:
    source = open_source(str(model))
    checkpoint = Interrupted(source._checkpoint, after)
    return dataclasses.replace(source, _checkpoint=checkpoint), checkpoint


def export(source: Source, output: Path, config: ExportConfig) -> list[str]:
    told: list[str] = []
    export_bundle(source, output, config, warn=told.append)
    return told


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def interrupted(model, output: Path, config: ExportConfig, after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(reading(model, after)[0], output, config)
    assert not output.exists()


@pytest.fixture(scope="module")
def whole(exported, tmp_path_factory):
    """Model, and for each form of weights the bundle of an uninterrupted export and its reads."""
    model = tmp_path_factory.mktemp("source") / "model"
    shutil.copytree(exported("llama").folder, model)
    made = {}
    for name, config in CONFIGS.items():
        output = tmp_path_factory.mktemp("whole") / "bundle"
        source, checkpoint = reading(model)
        assert export(source, output, config) == []
        made[name] = files(output), len(checkpoint.reads)
    return model, made


@pytest.mark.slow
@pytest.mark.parametrize("quant", CONFIGS)
@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.95])
def test_it_goes_on_at_the_tensor(whole, tmp_path, quant, share):
    model, made = whole
    expected, reads = made[quant]
    output = tmp_path / "bundle"
    after = int(share * reads)
    interrupted(model, output, CONFIGS[quant], after)
    source, checkpoint = reading(model)
    assert export(source, output, CONFIGS[quant]) == []
    assert files(output) == expected
    assert os.listdir(tmp_path) == ["bundle"]
    if quant == "int8":  # the tensor that was interrupted is read again, nothing before it
        assert len(checkpoint.reads) <= reads - after + 4


@pytest.mark.slow
def test_calibration_goes_on_at_its_block(whole, tmp_path):
    """The first block is not computed again: only the embedding and the second block are read."""
    model, made = whole
    expected, reads = made["w4"]
    output = tmp_path / "bundle"
    interrupted(model, output, CONFIGS["w4"], int(0.95 * reads))
    source, checkpoint = reading(model)
    export(source, output, CONFIGS["w4"])
    assert files(output) == expected
    assert not any(".layers.0." in name for name in checkpoint.reads)


@pytest.mark.slow
def test_many_interruptions(whole, tmp_path):
    model, made = whole
    expected, reads = made["int8"]
    output = tmp_path / "bundle"
    for _ in range(3):
        interrupted(model, output, CONFIGS["int8"], reads // 5)
    export(open_source(str(model)), output, CONFIGS["int8"])
    assert files(output) == expected


@pytest.mark.slow
@pytest.mark.parametrize("change", ["checkpoint", "setting"])
def test_another_model_or_setting_begins_anew(whole, tmp_path, change):
    original, made = whole
    expected, reads = made["int8"]
    model = tmp_path / "model"
    shutil.copytree(original, model)
    output = tmp_path / "bundle"
    config = CONFIGS["int8"]
    interrupted(model, output, config, reads // 2)
    if change == "setting":
        config = dataclasses.replace(config, quant="fp32")
    else:
        from safetensors.numpy import load_file, save_file

        weights = load_file(model / "model.safetensors")
        weights["model.norm.weight"] = np.full_like(weights["model.norm.weight"], 2)
        save_file(weights, model / "model.safetensors", {"format": "pt"})
    (told,) = export(open_source(str(model)), output, config)
    assert f"it had another {change}: it began anew" in told
    (tmp_path / "direct").mkdir()
    direct = tmp_path / "direct" / "bundle"
    export(open_source(str(model)), direct, config)
    assert files(output) == files(direct)
    assert files(output) != expected


@pytest.mark.slow
def test_damaged_bytes_are_written_again(whole, tmp_path):
    """As after a power cut: the log names tensors whose bytes never came to the disk."""
    model, made = whole
    expected, reads = made["int8"]
    output = tmp_path / "bundle"
    interrupted(model, output, CONFIGS["int8"], int(0.8 * reads))
    weights = tmp_path / ".bundle.export" / "bundle" / "weights.safetensors"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 3)
        file.write(b"\0" * 5000)
    log = tmp_path / ".bundle.export" / "log.jsonl"
    log.write_text(log.read_text() + '{"tensors": ["torn')
    export(open_source(str(model)), output, CONFIGS["int8"])
    assert files(output) == expected


_KILLED = """
import os, signal, sys
from pathlib import Path
from edgezo_export.export import ExportConfig, export_bundle

def tell(stage, done, total):
    if stage == "weights" and done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

export_bundle(sys.argv[1], Path(sys.argv[2]), ExportConfig(quant="int8"), tell)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_process(whole, tmp_path):
    model, made = whole
    expected, reads = made["int8"]
    output = tmp_path / "bundle"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", _KILLED, str(model), str(output)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == -signal.SIGKILL
    source, checkpoint = reading(model)
    export(source, output, CONFIGS["int8"])
    assert files(output) == expected
    assert len(checkpoint.reads) < 0.7 * reads


def test_two_exports_to_one_place(tmp_path):
    first = Unfinished(tmp_path / "bundle")
    with pytest.raises(UsageError, match="another process exports to it"):
        Unfinished(tmp_path / "bundle")
    first.close()
    Unfinished(tmp_path / "bundle").close()


def written(folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "name": name}))


def name_of(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text())["name"]


def replaced(output: Path, meanwhile: str | None = None) -> None:
    with unfinished(output) as place:
        written(place.bundle, "new")
        (place.bundle / "weights.safetensors").write_bytes(b"much")
        if meanwhile is not None:
            written(output, meanwhile)
        place.finish(force=meanwhile is None)


def test_an_old_bundle_that_was_not_replaced_comes_back(tmp_path):
    """A process ended between the two renames of `finish`."""
    written(tmp_path / ".bundle.export" / "old", "old")
    with pytest.raises(UsageError, match="exists; choose another"):
        check_output(tmp_path / "bundle", force=False)
    assert name_of(tmp_path / "bundle") == "old"
    restore(tmp_path / "bundle")
    place = Unfinished(tmp_path / "bundle")
    written(place.bundle, "new")
    place.finish(force=True)
    place.close()
    assert name_of(tmp_path / "bundle") == "new"
    assert os.listdir(tmp_path) == ["bundle"]


def test_an_old_bundle_survives_a_failed_rename(tmp_path, monkeypatch):
    """The second rename of `finish` fails: the old bundle is put back, and not removed."""
    output = tmp_path / "bundle"
    written(output, "old")
    rename = Path.rename

    def refused(self, target):
        if self.name == "bundle" and self.parent.name == ".bundle.export":
            raise OSError(5, "input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="input/output"):
        replaced(output)
    assert name_of(output) == "old"
    assert os.listdir(tmp_path) == ["bundle"]


def test_an_old_bundle_that_cannot_be_put_back_is_not_removed(tmp_path):
    written(tmp_path / "bundle", "old")
    place = Unfinished(tmp_path / "bundle")
    (tmp_path / "bundle").rename(place.folder / "old")
    place.discard()
    place.close()
    restore(tmp_path / "bundle")
    assert name_of(tmp_path / "bundle") == "old"


def test_a_place_that_was_taken_meanwhile(tmp_path):
    """The output is checked again before it is replaced; what is written waits."""
    output = tmp_path / "bundle"
    with pytest.raises(UsageError, match="exists; choose another"):
        replaced(output, meanwhile="another")
    assert name_of(output) == "another"
    assert (tmp_path / ".bundle.export" / "bundle" / "weights.safetensors").read_bytes() == b"much"


def test_a_lock_of_a_removed_folder_is_no_lock(tmp_path, monkeypatch):
    """A process ends, and removes the folder, after another one has opened its lock file."""
    first = Unfinished(tmp_path / "bundle")
    claim = Unfinished._claim

    def after_the_first(self, descriptor):
        if first is not None:
            ended()
        claim(self, descriptor)

    def ended():
        nonlocal first
        first.discard()
        first.close()
        first = None

    monkeypatch.setattr(Unfinished, "_claim", after_the_first)
    second = Unfinished(tmp_path / "bundle")
    with pytest.raises(UsageError, match="another process"):
        Unfinished(tmp_path / "bundle")
    second.close()


def test_a_folder_that_someone_else_may_have_made(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".bundle.export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="a link or a file"):
        Unfinished(tmp_path / "bundle")
    (tmp_path / ".bundle.export").unlink()
    place = Unfinished(tmp_path / "bundle")
    assert place.folder.stat().st_mode & 0o777 == 0o700
    place.close()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(UsageError, match="of another user"):
        Unfinished(tmp_path / "bundle")


def test_what_is_left_of_an_old_log(tmp_path):
    """A file that is no log, or one without weights, is no reason to fail."""
    from edgezo_export.quantization.tensor_log import TensorLog

    for text in ("", "[]\n", "{", json.dumps({"layout": 1}) + "\n{}\n"):
        (tmp_path / "log.jsonl").write_text(text)
        log = TensorLog(tmp_path, {"checkpoint": "a"}, lambda text: None)
        assert log.begin(tmp_path / "w", b"start", {}) == set()
        assert log.stored_states() is None


def test_a_log_of_any_size(tmp_path):
    """The first line is made longer than a small file may be."""
    from edgezo_export.quantization.tensor_log import TensorLog
    from edgezo_export.quantization.weights_plan import WrittenTensor

    weights, places = tmp_path / "w", {"a": WrittenTensor(1, 2, "U8", (2,))}
    weights.write_bytes(b"start")
    told: list[str] = []
    log = TensorLog(tmp_path, {"checkpoint": "a"}, told.append)
    assert log.begin(weights, b"start", places) == set()
    log.add(weights, ["a"], places)
    file = tmp_path / "log.jsonl"
    file.write_text(file.read_text().replace("}", "}" + " " * (9 << 20), 1))
    log = TensorLog(tmp_path, {"checkpoint": "a"}, told.append)
    assert log.begin(weights, b"start", places) == {"a"}
    assert told == []
    log = TensorLog(tmp_path, {"checkpoint": "b"}, told.append)
    assert log.begin(weights, b"start", places) == set()
    assert told == [
        "an export to the same place was not finished, and it had another checkpoint: it began anew"
    ]


def test_facts_tell_versions_and_sources(monkeypatch, tmp_path):
    """Another source tree begins anew, and so does another transformers."""
    from edgezo_export import export

    (tmp_path / "a.py").write_text("1")
    monkeypatch.setattr(export, "__file__", str(tmp_path / "export.py"))
    facts = [export.log_facts("x", ExportConfig())]
    (tmp_path / "a.py").write_text("2")
    facts.append(export.log_facts("x", ExportConfig(force=True)))
    monkeypatch.setattr(export, "_version", lambda name: f"1 of {name}")
    facts.append(export.log_facts("x", ExportConfig()))
    assert len({one["version"] for one in facts}) == 3
    assert len({(one["checkpoint"], one["setting"]) for one in facts}) == 1
    for name in ("transformers", "torch", "tokenizers", "gguf", "numpy", "onnxruntime"):
        assert f"1 of {name}" in facts[2]["version"]
