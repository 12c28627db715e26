"""A bundle of a tiny model that spells, with a chat template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edgezo_runtime.bundle.bundle import Bundle
from tests.bundles.tiny import speller
from tests.conftest import copied

TEMPLATE = (
    "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '<s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
"""It ends turns with another token than the end token of the bundle."""


def chat_bundle(root: Path, template: str = TEMPLATE, quant: str = "auto") -> Bundle:
    """Copy the bundle to a folder, and give it the template."""
    root = copied(root, lambda: speller(quant))
    path = root / "manifest.json"
    manifest = json.loads(path.read_text())
    name, text = "chat_template.jinja", template.encode()
    (root / name).write_bytes(text)
    manifest["tokenizer"]["chat_template"] = name
    digest = hashlib.sha256(text).hexdigest()
    manifest["files"][name] = {"bytes": len(text), "sha256": digest}
    path.write_text(json.dumps(manifest))
    return Bundle.open(root)
