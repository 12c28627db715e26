from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgezo import EdgezoError
from edgezo.cli.tune.default_bundle import default_name
from tests.bundles.cache import cached
from tests.bundles.tiny import speller
from tests.conftest import copied, there

ROOT = Path(__file__).resolve().parents[2]

CHAT = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

Surroundings = dict[str, str]
"""Environment variables of an example."""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two blocks that spells, exported, with a chat template."""
    bundle = copied(tmp_path_factory.mktemp("speller") / "bundle", speller)
    (bundle / "chat_template.jinja").write_text(CHAT)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["tokenizer"]["chat_template"] = "chat_template.jinja"
    digest = hashlib.sha256(CHAT.encode()).hexdigest()
    manifest["files"]["chat_template.jinja"] = {"bytes": len(CHAT), "sha256": digest}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


@pytest.fixture(scope="session")
def real_bundle() -> Path:
    """The default model, exported once."""
    from edgezo_export.sources.hub import embedded_default

    try:
        embedded_default()
    except EdgezoError as error:
        pytest.skip(str(error))

    def make(folder: Path) -> None:
        command = [sys.executable, "-m", "edgezo", "export", "-o", str(folder)]
        subprocess.run(command, env=surroundings(), check=True, capture_output=True)

    return there(cached, "default/bundle", make)


def surroundings() -> Surroundings:
    """The environment of a process that imports this checkout."""
    paths = os.pathsep.join(str(ROOT / part) for part in (".", "export", "runtime"))
    return {**os.environ, "PYTHONPATH": paths}


@pytest.fixture
def with_default(tmp_path: Path) -> Callable[[Path], Surroundings]:
    """Given a bundle: the environment of a process that finds it where the default one lies."""

    def place(bundle: Path) -> Surroundings:
        bundles = tmp_path / "cache" / "edgezo" / "bundles"
        bundles.mkdir(parents=True)
        (bundles / default_name()).symlink_to(bundle)
        return {**surroundings(), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    return place
