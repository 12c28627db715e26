"""A bundle made ready to write: adapter, tokenizer, engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgezo.cli.stop_signals import StopSignals
from edgezo.cli.tune_job import verify
from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.generation.generator import Generator

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgezo_runtime.data.scope import Scope
    from edgezo_runtime.data.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Tuned:
    """Trainables of a bundle, its own or an adapter's.

    Attributes:
        params: every trainable input by name.
        scope: tokens they act on.
        warnings: what is odd about them.
    """

    params: Mapping[str, npt.NDArray[np.float32]]
    scope: Scope
    warnings: list[str]

    @classmethod
    def open(cls, bundle: Bundle, adapter: str | None) -> Tuned:
        """Those of an adapter, or the bundle's own.

        Raises:
            EdgezoError: the adapter is missing, damaged, or another bundle's.
        """
        if adapter is None:
            return cls(bundle.trainables(), "all", [])
        found = load_adapter(Path(adapter))
        other = found.fits_warning(bundle)
        return cls(found.params(bundle), found.info.scope, [] if other is None else [other])


@dataclass(frozen=True, slots=True)
class Writer:
    """What writes.

    Attributes:
        generator: with an engine.
        tokenizer: the bundle's.
        params: every trainable input by name.
        warnings: what is odd.
    """

    generator: Generator
    tokenizer: TextTokenizer
    params: Mapping[str, npt.NDArray[np.float32]]
    warnings: list[str]


def open_writer(
    bundle: Bundle,
    adapter: str | None,
    signals: StopSignals,
    *,
    budget: int | None,
    threads: int,
    verified: bool,
) -> Writer:
    """Open everything that writing takes.

    Args:
        bundle: the model.
        adapter: run folder or adapter file, None for the bundle's own trainables.
        signals: ends it early.
        budget: bytes, None for no memory_limits.
        threads: compute threads; 0 takes one a core.
        verified: check the digests of the bundle's files first.
    Raises:
        EdgezoError: something is missing, damaged, or does not fit; or the bundle cannot generate.
    """
    with refusing_to_begin():
        if verified:
            verify(bundle, signals)
        tuned = Tuned.open(bundle, adapter)
        tokenizer = open_tokenizer(bundle)
        engine = limited_engine(bundle, budget, threads or None)
        generator = Generator(engine, tokenizer, scope=tuned.scope)
        return Writer(generator, tokenizer, tuned.params, tuned.warnings)
