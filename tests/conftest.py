from __future__ import annotations

import functools
import gc
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bundles.cache import MissingBundleError
from tests.bundles.tiny import tiny_bundle, tiny_model
from tests.bundles.traces import use_cached_traces

if TYPE_CHECKING:  # torch takes seconds to import; most tests do without
    from transformers import PreTrainedModel

    from edgezo_runtime.bundle.bundle import Bundle
    from tests.export.bundle_runner import BundleRunner
    from tests.export.tiny_models import TinyModel

# Of torch and of BLAS: tests run beside each other, and tiny products gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_MODULES_SEEN = 0


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Leave torch and transformers out of garbage collection, and tracing out of exports."""
    global _MODULES_SEEN
    if len(sys.modules) > _MODULES_SEEN + 20:
        _MODULES_SEEN = len(sys.modules)
        gc.collect()
        gc.freeze()
        use_cached_traces()


@dataclass(slots=True)
class Exported:
    """A tiny model, and its bundles. Of all this only `kind` and `model` need torch."""

    name: str
    _place: Path
    _model: PreTrainedModel | None = None
    _runners: dict[str, BundleRunner] = field(default_factory=dict)

    @property
    def kind(self) -> TinyModel:
        """How it is made."""
        pytest.importorskip("torch")
        from tests.export.tiny_models import TINY

        return TINY[self.name]

    @property
    def model(self) -> PreTrainedModel:
        """The model as torch knows it."""
        if self._model is None:
            torch = pytest.importorskip("torch")
            with torch.inference_mode(False):  # or nobody could change its weights later
                self._model = self.kind.build()
        return self._model

    @property
    def folder(self) -> Path:
        """The model as transformers saves it, in the cache: its path is what bundles call it."""
        return there(tiny_model, self.name)

    def bundle(self, quant: str) -> BundleRunner:
        """Its bundle, with adapters of rank 3 on the layers that `kind` names."""
        from tests.export.bundle_runner import BundleRunner

        if quant not in self._runners:
            path = copied(self._place / f"model.{quant}", tiny_bundle, self.name, quant)
            self._runners[quant] = BundleRunner(path)
        return self._runners[quant]


def there(find: Callable[..., Path], *args: object) -> Path:
    """A folder of the cache of bundles; skips the test where it is missing and cannot be made."""
    try:
        return find(*args)
    except MissingBundleError as error:
        pytest.skip(str(error))


def copied(place: Path, find: Callable[..., Path], *args: object) -> Path:
    """Copy a folder of the cache of bundles, so that no test can spoil the cache."""
    if not place.exists():
        shutil.copytree(there(find, *args), place)
    return place


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Name in `TINY` -> the model, one object a session."""
    return functools.cache(lambda name: Exported(name, tmp_path_factory.mktemp(name)))


@pytest.fixture
def bundle(exported: Callable[[str], Exported]) -> Bundle:
    """A tiny llama's, fp32."""
    return exported("llama").bundle("fp32").bundle


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not wait for the disk: for tests in which nobody pulls the plug."""
    monkeypatch.setattr("edgezo_runtime.system.files.os.fsync", lambda descriptor: None)
