"""The edits of a scheme in one block, applied while the graph of the block is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.schemes.scheme import Edit, Place, Scheme, Stage
from edgezo_export.schemes.site import Site
from edgezo_export.trace.symbols import DOMAIN
from edgezo_runtime.bundle.manifest import TrainableInfo


class BlockEdits:
    """Asks a scheme for its edits of the places of a block, and applies them.

    Args:
        draft: graph of the block.
        scheme: the trainables.
        block: number of the block.
        module: its path.
        nodes: its traced nodes.
    """

    def __init__(
        self, draft: GraphBuilder, scheme: Scheme, block: int, module: str, nodes: Sequence[ir.Node]
    ) -> None:
        self.made: list[Edit] = []
        self._draft = draft
        self._scheme = scheme
        self._block = block
        self._module = module
        self._ends = linear_ends(nodes)
        self._active = None
        if not scheme.info().everywhere:
            self._active = draft.input("active", ir.DataType.FLOAT, ("rows", "tokens"))

    @property
    def trainables(self) -> list[TrainableInfo]:
        """The tensors of the edits applied so far."""
        return [info for edit in self.made for info in edit.tensors]

    def linear(
        self, node: ir.Node, module: str, sizes: tuple[int, int], *, in_out: bool, bias: bool
    ) -> Sequence[Edit]:
        """Return the edits of a linear layer.

        Args:
            node: the traced layer.
            module: its path.
            sizes: inputs and outputs.
            in_out: its weights are stored (in, out).
            bias: it has a bias.
        """
        ends = self._ends.get(node)
        place = Place("linear", self._block, module, *sizes, in_out=in_out, bias=bias, ends=ends)
        return self._scheme.edits(place)

    def norm(self, module: str, width: int, bias: bool) -> Sequence[Edit]:
        """Return the edits of a norm."""
        return self._scheme.edits(Place("norm", self._block, module, width, width, bias=bias))

    def entry(self, hidden_size: int) -> Sequence[Edit]:
        """Return the edits of the hidden states that the block starts from."""
        return self._scheme.edits(
            Place("entry", self._block, self._module, hidden_size, hidden_size)
        )

    def attention(self, heads: int, width: int) -> Sequence[Edit]:
        """Return the edits of earlier keys and values."""
        return self._scheme.edits(Place("attention", self._block, self._module, heads, width))

    def no_past(self) -> None:
        """Tell the scheme that the attention cannot continue from earlier keys and values.

        Raises:
            UsageError: the scheme needs them.
        """
        self._scheme.edits(Place("attention", self._block, self._module, 0, 0, continues=False))

    def apply(
        self,
        edits: Sequence[Edit],
        stage: Stage,
        y: ir.Value,
        *,
        x: ir.Value | None = None,
        like: ir.Value | None = None,
        heads: int = 1,
    ) -> ir.Value:
        """Apply the edits of a stage.

        Args:
            edits: of a place.
            stage: the edits of other stages are skipped.
            y: the value to change.
            x: the input that y was computed from; None for y itself.
            like: the shape of y, if the graph has it already.
            heads: vectors per token in y, if y is (R, S, heads, D).
        Returns:
            The changed value.
        """
        for edit in edits:
            if edit.stage != stage:
                continue
            shape = self._draft.op("Shape", y) if like is None else like
            site = Site(self._draft, y if x is None else x, y, shape, self._per_vector(heads))
            y = edit.emit(site)
            self.made.append(edit)
        return y

    def _per_vector(self, heads: int) -> ir.Value | None:
        if self._active is None or heads == 1:
            return self._active
        column = self._draft.op("Unsqueeze", self._active, self._draft.ints(2))
        return self._draft.op("Expand", column, self._draft.ints(1, 1, heads))


def linear_ends(nodes: Sequence[ir.Node]) -> dict[ir.Node, Literal["attention", "mlp"]]:
    """Find the linear layers that the attention and the MLP of a block end with.

    These are the first linear layer after the attention, and the last one of the block.
    """
    position = {node: index for index, node in enumerate(nodes) if node.domain == DOMAIN}
    attention = [index for node, index in position.items() if node.op_type == "Attention"]
    after = [
        node
        for node, index in position.items()
        if node.op_type == "Linear" and attention and index > attention[0]
    ]
    if len(after) < 2:
        return {}
    return {after[0]: "attention", after[-1]: "mlp"}
