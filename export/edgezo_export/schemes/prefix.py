"""`prefix`: trained keys and values in front of every block's attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgezo_export.graph_builder import COPIES
from edgezo_export.schemes.scheme import Edit, Float32, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site
from edgezo_export.schemes.virtual_tokens import choose_tokens
from edgezo_runtime.bundle.manifest import SchemeInfo, SchemeKind, TrainableInfo
from edgezo_runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Prefix:
    """Prefix tuning (Li and Liang 2021, arXiv:2101.00190), without a reparametrization.

    The prefix starts as the keys and values that the model computes for real tokens. The positions
    of the rows start at N, as in PEFT.

    Attributes:
        virtual_tokens: N.
        seed: of the choice of real tokens.
        tokens: the chosen tokens; `resolve` chooses them where there are none.
        architecture: of the model, filled in by `resolve`.
    """

    kind: ClassVar[SchemeKind] = "prefix"
    chosen: ClassVar[frozenset[str]] = frozenset({"tokens", "architecture"})

    virtual_tokens: int = 5
    seed: int = 0
    tokens: tuple[int, ...] = ()
    architecture: str = ""

    def resolve(self, model: ModelFacts) -> Prefix:
        """Choose the tokens that the virtual tokens start as."""
        tokens = self.tokens or choose_tokens(self.virtual_tokens, model, self.seed)
        return replace(self, tokens=tokens, architecture=model.architecture)

    def info(self) -> SchemeInfo:
        """Return the manifest's record."""
        return SchemeInfo("prefix", tokens=self.tokens)

    def edits(self, place: Place) -> Sequence[Edit]:
        """Return the keys and values in front of a block's attention.

        Raises:
            UsageError: the attention cannot continue from earlier keys and values.
        """
        if place.kind != "attention":
            return ()
        if not place.continues:
            raise UsageError(
                f"`trainable` prefix: {place.module} of this {self.architecture} model cannot "
                f"continue from earlier keys and values; use `trainable` prompt"
            )
        shape = (place.in_features, len(self.tokens), place.out_features)
        block, module = place.block, place.module
        key = TrainableInfo(f"{module}.prefix_key", block, module, "prefix_key", shape, True)
        value = TrainableInfo(f"{module}.prefix_value", block, module, "prefix_value", shape, True)

        def keys(origin: Origin) -> Iterator[Float32]:
            yield origin.keys_values(block, self.tokens)[0]

        def values(origin: Origin) -> Iterator[Float32]:
            yield origin.keys_values(block, self.tokens)[1]

        return (
            Edit((key,), "key", lambda site: _emit(site, key), keys),
            Edit((value,), "value", lambda site: _emit(site, value), values),
        )


def _emit(site: Site, info: TrainableInfo) -> ir.Value:
    """Append the copy (n, N, D) of every row in front of its keys or values (R, n, P, D).

    N is a dynamic dimension of the graph: with an empty prefix the blocks are the frozen model,
    which computes the initial values.
    """
    draft = site.draft
    axis = f"{COPIES}{info.role}"
    heads, _, width = info.shape
    copies = draft.trainable(info.name, (axis, heads, "virtual", width))
    count = draft.op("Squeeze", site.count(copies))
    rows = draft.op("Squeeze", draft.op("Shape", site.y, start=0, end=1))
    zero, one = (draft.constant(np.int64(number)) for number in (0, 1))
    row = draft.op("Range", zero, rows, one)
    own = draft.op("Div", draft.op("Mul", row, count), rows)
    return draft.op("Concat", draft.op("Gather", copies, own, axis=0), site.y, axis=2)
