"""`edgezo export`: warnings, settings out of range, and files in place of folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.edgezo.conftest import Invoke, Tiny

pytest.importorskip("torch", reason="makes bundles")


@pytest.mark.slow
def test_warnings_are_printed_and_in_the_result(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    model = shutil.copytree(tiny.model, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save(str(model / "tokenizer.json"))
    output = tmp_path / "b"
    found = invoke("export", model, "-o", output, "--json")
    (warning,) = json.loads(found.stdout)["warnings"]
    assert "the tokenizer has 98 tokens, the model 97: 1 rows of embedding and head" in warning
    assert f"warning: {warning}" in found.stderr.splitlines()


def test_files_in_place_of_folders(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = invoke("export", tiny.model, "-o", tmp_path / "file", "--force", code=2)
    assert "is a file, and a bundle is a folder; choose another --output" in found.stderr
    found = invoke("export", tiny.model / "model.safetensors", "-o", tmp_path / "b", code=2)
    assert f"name the folder that it lies in: {tiny.model}" in found.stderr
    weights = tiny.fp32 / "weights.safetensors"
    for arguments in (
        ("plan", weights, "--data", tiny.data, "--budget", "1GB"),
        ("tune", weights, "--data", tiny.data, "--budget", "1GB", "-o", tmp_path / "run"),
        ("eval", weights, "--data", tiny.data),
        ("generate", weights, "--prompt", "w4"),
        ("replay", weights, tmp_path, "-o", tmp_path / "a.safetensors"),
    ):
        found = invoke(*arguments, code=1)
        assert f"is a file; name the folder that it lies in: {tiny.fp32}" in found.stderr


@pytest.mark.parametrize("value", [("--group-size", "48"), ("--calibration-rows", "513")])
def test_settings_are_checked_before_a_model_is_looked_for(
    invoke: Invoke, value: tuple[str, str]
) -> None:
    found = invoke("export", "no-such/model", "-o", "b", *value, code=2)
    assert f"{' '.join(value)}: must be" in found.stderr
