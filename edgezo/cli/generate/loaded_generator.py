"""A bundle that is ready to generate: engine, adapter, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgezo.cli.files.verify import verify
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.budget.placement import ON_CPU, Placement
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.scope import ACTS_ON
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.generation.generator import Generator

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgezo_runtime.adapters.adapter_info import AdapterInfo
    from edgezo_runtime.config import AnswerSettings
    from edgezo_runtime.data.reading import Reading
    from edgezo_runtime.data.scope import Scope
    from edgezo_runtime.data.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True)
class Tuned:
    """Trainables of a bundle, its own or those of an adapter.

    Attributes:
        params: every trainable input by name.
        scope: tokens that they act on.
        info: what the adapter says of itself; None without an adapter.
        differences: of the bundle from the one that the adapter was tuned on.
    """

    params: Mapping[str, npt.NDArray[np.float32]]
    scope: Scope
    info: AdapterInfo | None = None
    differences: tuple[str, ...] = ()

    @property
    def reading(self) -> Reading | None:
        """How the rows were read that the adapter was tuned on; None if that is not known."""
        return None if self.info is None else self.info.reading

    @property
    def answers(self) -> AnswerSettings | None:
        """How the answers were generated that the adapter was tuned on; None if none were."""
        return None if self.info is None else self.info.answers

    def lines(self) -> list[tuple[str, str]]:
        """The tokens that the adapter acts on, for people; nothing without an adapter."""
        return [] if self.info is None else [("acts on", ACTS_ON[self.scope])]

    @classmethod
    def open(cls, bundle: Bundle, adapter: str | None) -> Tuned:
        """Load an adapter; without one, take the bundle's own trainables.

        Raises:
            EdgezoError: the adapter is missing or damaged, or belongs to another bundle.
        """
        if adapter is None:
            return cls(bundle.trainables(), "all")
        found = load_adapter(Path(adapter))
        params = found.params(bundle)
        return cls(params, found.info.scope, found.info, tuple(found.differences(bundle)))


@dataclass(frozen=True, slots=True)
class LoadedGenerator:
    """A generator with its tokenizer and its adapter.

    Attributes:
        generator: with its engine.
        tokenizer: the bundle's.
        tuned: the trainables, and what is known of the adapter.
    """

    generator: Generator
    tokenizer: TextTokenizer
    tuned: Tuned


def load_generator(
    bundle: Bundle,
    adapter: str | None,
    signals: StopSignals,
    *,
    budget: int | None,
    threads: int,
    verified: bool,
    placement: Placement = ON_CPU,
) -> LoadedGenerator:
    """Load everything that generation needs.

    Args:
        bundle: the model.
        adapter: run folder or adapter file, None for the bundle's own trainables.
        signals: interrupt the check of the bundle.
        budget: in bytes; None sets no memory limits.
        threads: compute threads; 0 takes one per core.
        verified: check the digests of the bundle's files first.
        placement: the device that computes.
    Raises:
        EdgezoError: a file is missing or damaged, memory is short, or the bundle cannot generate.
    """
    with refusing_to_begin():
        if verified:
            verify(bundle, signals)
        tuned = Tuned.open(bundle, adapter)
        tokenizer = open_tokenizer(bundle)
        engine = limited_engine(bundle, budget, threads or None, placement)
        generator = Generator(engine, tokenizer, scope=tuned.scope)
        return LoadedGenerator(generator, tokenizer, tuned)
