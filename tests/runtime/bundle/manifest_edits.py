"""Changes of a manifest on disk."""

from __future__ import annotations

import json
from pathlib import Path


def edit(root: Path, change) -> None:
    """Rewrite manifest.json after `change` has worked on its parsed content."""
    path = root / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def put(*keys_and_value):
    """A change that sets content[k0][k1]... = value."""
    *keys, last, value = keys_and_value

    def change(content):
        for key in keys:
            content = content[key]
        content[last] = value

    return change


def drop(*keys):
    """A change that removes content[k0][k1]..."""

    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def backward(of: str, **changes: object) -> dict[str, object]:
    """An entry of the manifest's list of backward graphs."""
    hidden = {"name": "hidden", "dtype": "float32", "shape": ["R", "S", 8]}
    return {
        "file": "graphs/labels.onnx",  # any that is listed
        "of": of,
        "inputs": [hidden, hidden | {"name": "grad"}],
        "outputs": [hidden | {"name": "hidden.grad"}],
        "plain": None,
        **changes,
    }


FORWARD = [f"graphs/{name}.onnx" for name in ("block_000", "block_001", "labels", "tokens")]
