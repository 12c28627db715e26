from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # torch takes seconds to import; most tests do without
    from transformers import PreTrainedModel

    from edgezo_runtime.bundle.bundle import Bundle
    from tests.export.bundle_runner import BundleRunner
    from tests.export.tiny_models import TinyModel


@dataclass(slots=True)
class Exported:
    """A tiny model as torch knows it, and its bundles."""

    kind: TinyModel
    model: PreTrainedModel
    folder: Path
    _runners: dict[str, BundleRunner] = field(default_factory=dict)

    def bundle(self, quant: str) -> BundleRunner:
        """Its bundle, exported at the first call."""
        from edgezo_export.export import ExportConfig, export_bundle
        from edgezo_export.schemes.lora import Lora
        from tests.export.bundle_runner import BundleRunner

        if quant not in self._runners:
            output = self.folder.with_suffix(f".{quant}")
            lora = Lora(rank=3, alpha=6.0, targets=self.kind.targets)
            export_bundle(str(self.folder), output, ExportConfig(quant=quant, scheme=lora))
            self._runners[quant] = BundleRunner(output)
        return self._runners[quant]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Name in `TINY` -> the model; made once a session."""
    made: dict[str, Exported] = {}

    def get(name: str) -> Exported:
        from tests.export.tiny_models import TINY, save

        if name not in made:
            model = TINY[name].build()
            folder = save(model, tmp_path_factory.mktemp(name) / "model")
            made[name] = Exported(TINY[name], model, folder)
        return made[name]

    return get


@pytest.fixture
def bundle(exported: Callable[[str], Exported]) -> Bundle:
    """A tiny llama's, fp32."""
    return exported("llama").bundle("fp32").bundle


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for the disk: for tests in which nobody pulls the plug."""
    monkeypatch.setattr("edgezo_runtime.system.files.os.fsync", lambda descriptor: None)
