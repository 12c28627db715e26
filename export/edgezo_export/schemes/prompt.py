"""`prompt`: trained embeddings of virtual tokens in front of every row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site
from edgezo_export.schemes.virtual_tokens import choose_tokens
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo, TrainableRole
from edgezo_runtime.bundle.manifest_types import SLOTS


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt tuning (Lester et al. 2021, arXiv:2104.08691).

    The runtime puts real tokens in front of every row. The first block adds to their hidden states
    the differences of the trained embeddings from the initial ones. So positions, and all else that
    comes before the first block, are those of real tokens.

    Attributes:
        virtual_tokens: N.
        seed: of the choice of real tokens.
        tokens: the chosen tokens; `resolve` chooses them where there are none.
        embedding: name of the table, filled in by `resolve`.
    """

    kind: ClassVar[SchemeKind] = "prompt"
    chosen: ClassVar[frozenset[str]] = frozenset({"tokens", "embedding"})

    virtual_tokens: int = 10
    seed: int = 0
    tokens: tuple[int, ...] = ()
    embedding: str = ""

    def resolve(self, model: ModelFacts) -> Prompt:
        """Choose the tokens that the virtual tokens start as."""
        tokens = self.tokens or choose_tokens(self.virtual_tokens, model, self.seed)
        return replace(self, tokens=tokens, embedding=model.embedding)

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("prompt", tokens=self.tokens)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return the change of the entry of the first block."""
        if place.kind != "entry" or place.block:
            return ()
        shape = (len(self.tokens), place.out_features)

        def make(role: TrainableRole, trains: bool) -> TrainableInfo:
            return TrainableInfo(f"{place.module}.{role}", 0, place.module, role, shape, trains)

        prompt, base = make("prompt", True), make("prompt_base", False)

        def emit(site: Site) -> ir.Value:
            return _emit(site, prompt, base)

        def values(origin: Origin) -> Iterator[Float32]:
            rows = [origin.reader.read_rows(self.embedding, t, t + 1) for t in self.tokens]
            initial = np.concatenate(rows)
            yield _padded(initial, shape[1])
            yield _padded(initial, shape[1])

        return (Edit((prompt, base), "output", emit, values),)


def _padded(rows: Float32, width: int) -> Float32:
    """Return rows as wide as the hidden states.

    Models that project embeddings get zeros: the differences are added after the projection, where
    embeddings have no meaning.
    """
    return rows if rows.shape[1] == width else np.zeros((len(rows), width), np.float32)


def _emit(site: Site, prompt: TrainableInfo, base: TrainableInfo) -> ir.Value:
    """Append hidden + (prompt - base)[slot]; slot N adds 0."""
    draft = site.draft
    trained = site.copies(prompt)
    change = draft.op("Sub", trained, site.copies(base))
    table = draft.op("Pad", change, draft.ints(0, 0, 0, 0, 1, 0))  # (P, N + 1, H)
    slots = draft.input(SLOTS, ir.DataType.INT64, ("rows", "tokens"))
    index = site.view(slots, site.count(trained), 1)
    return site.add(draft.op("GatherND", table, index, batch_dims=1))
