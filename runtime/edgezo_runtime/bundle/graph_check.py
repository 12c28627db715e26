"""Checks of what a manifest says about its graphs, and of its paths and names.

Importing this module loads no array library.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from edgezo_runtime.bundle.manifest_types import (
    DTYPES,
    GRAD,
    PAST,
    SLOTS,
    BackwardInfo,
    GraphInfo,
    grad_name,
)
from edgezo_runtime.bundle.trainables import MAX_AXIS
from edgezo_runtime.errors import BundleError

_OWN_INPUTS = {
    "prologue": frozenset({"input_ids", "attention_mask"}),
    "blocks": frozenset({"hidden", "code", "decode", "active", "past_lengths", *PAST, SLOTS}),
    "score_labels": frozenset({"hidden", "positions", "label_ids"}),
    "score_tokens": frozenset({"hidden", "positions", "targets"}),
    "logits": frozenset({"hidden", "positions"}),
    "rows": frozenset({"states", "index"}),
    "sum": frozenset({"left", "right"}),
}
"""Inputs that the runtime feeds, apart from bound tensors and, for blocks, the context."""

_FORWARD_ONLY = ("prologue", "logits", "rows", "sum")
"""Graphs that have no backward graph."""


EXPORT_AGAIN = "run 'edgezo export --force'"


def require(condition: object, message: str) -> None:
    """Refuse a manifest unless a condition holds.

    Raises:
        BundleError: it does not.
    """
    if not condition:
        raise BundleError(f"manifest: {message}; {EXPORT_AGAIN}")


def check_path(name: str) -> None:
    """Refuse a path that is not a plain relative one: it could leave the bundle.

    Raises:
        BundleError: empty, absolute, with "..", ".", a backslash, a colon or a control character.
    """
    parts = name.split("/")
    plain = (
        name
        and not PurePosixPath(name).is_absolute()
        and all(part not in ("", ".", "..") for part in parts)
        and name.isprintable()  # no control characters, no lone surrogates
        and not any(char in name for char in "\\:")
    )
    if not plain:
        raise BundleError(f"manifest: unsafe path {name!r:.80}; {EXPORT_AGAIN}")


def unique(names: Iterable[str], where: str) -> None:
    """Refuse names that repeat, are empty or do not print.

    Raises:
        BundleError: naming the first one.
    """
    seen: set[str] = set()
    for name in names:
        require(name and name.isprintable(), f"{where}: {name[:80]!r} is no name")
        require(name not in seen, f"{where}: {name!r} twice")
        seen.add(name)


def check_graph(where: str, graph: GraphInfo) -> None:
    """Check names, dtypes, shapes and bindings of a graph.

    Raises:
        BundleError: naming the first part that is wrong.
    """
    for side, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        unique((tensor.name for tensor in tensors), f"graphs.{where}.{side}")
        for tensor in tensors:
            place = f"graphs.{where}.{side}.{tensor.name}"
            require(tensor.dtype in DTYPES, f"{place}: unknown dtype {tensor.dtype!r:.40}")
            plain = all(
                dim if isinstance(dim, str) else 0 < dim <= MAX_AXIS for dim in tensor.shape
            )
            require(plain, f"{place}: shape {str(tensor.shape)[:80]}")
    require(graph.outputs, f"graphs.{where}.outputs: it makes nothing")
    bound = [*graph.trainables, *graph.weights]
    unique((binding.input for binding in bound), f"graphs.{where}: bound inputs")
    unique((binding.tensor for binding in graph.trainables), f"graphs.{where}.trainables")
    lost = {binding.input for binding in bound} - {tensor.name for tensor in graph.inputs}
    require(not lost, f"graphs.{where}: {min(lost, default='')!r} is bound but not an input")
    odd = set(graph.routed) - {binding.input for binding in graph.weights}
    require(not odd, f"graphs.{where}.routed: {min(odd, default='')[:80]!r} is no weight")
    shapes = {tensor.name: tensor.shape for tensor in graph.inputs}
    past = [shapes[name] for name in PAST if name in shapes]
    if past:
        form = [isinstance(dim, int) for dim in past[0]] == [False, True, False, True]
        same = len(past) == len(PAST) and past[0] == past[1]
        require(form and same, f"graphs.{where}: {' and '.join(PAST)} have shapes {past}")
    for binding in graph.weights:
        fixed = all(isinstance(dim, int) for dim in shapes[binding.input])
        require(fixed, f"graphs.{where}: weight {binding.input!r} has no fixed shape")
        low = f"weight {binding.input!r} starts at row {binding.start}"
        require(binding.start >= 0, f"graphs.{where}: {low}")


def check_fed(where: str, graph: GraphInfo, context: Iterable[str]) -> None:
    """Refuse inputs that the runtime does not feed, and missing outputs.

    Raises:
        BundleError: naming one of them.
    """
    kind = where.partition("[")[0]
    known = _OWN_INPUTS[kind].union(context if kind == "blocks" else ())
    known |= {binding.input for binding in (*graph.trainables, *graph.weights)}
    odd = [tensor.name for tensor in graph.inputs if tensor.name not in known]
    require(not odd, f"graphs.{where}.inputs: unknown input {min(odd, default='')!r}")
    made = {tensor.name for tensor in graph.outputs}
    needed = {"hidden"} if kind == "prologue" else {"key", "value"} if graph.past else set()
    lost = needed - made
    require(not lost, f"graphs.{where}.outputs: {min(lost, default='')!r} is missing")


def check_backward(
    infos: Sequence[BackwardInfo], named: Sequence[tuple[str, GraphInfo]], where: str = "backward"
) -> None:
    """Check backward graphs against the graphs that they belong to.

    Args:
        infos: the backward graphs.
        named: forward graphs with their names, as `Graphs.named` gives them.
        where: the entry of the manifest, for messages.

    Raises:
        BundleError: naming the first part that is wrong.
    """
    unique((info.of for info in infos), where)
    forward = {graph.file: graph for _, graph in named}
    for info in infos:
        place = f"{where}.{info.file}"
        require(info.of in forward, f"{place}: there is no graph {info.of!r}")
        taken = {tensor.name for tensor in forward[info.of].inputs}
        known = {GRAD, *taken, *(tensor.name for tensor in forward[info.of].outputs)}
        odd = [tensor.name for tensor in info.inputs if tensor.name not in known]
        require(not odd, f"{place}: unknown input {min(odd, default='')!r}")
        for tensor in (*info.inputs, *info.outputs):
            require(tensor.dtype in DTYPES, f"{place}: unknown dtype {tensor.dtype!r:.40}")
        outputs = [tensor.name for tensor in info.outputs]
        odd = [name for name in outputs if name not in {grad_name(name) for name in taken}]
        require(not odd, f"{place}: {min(odd, default='')!r} is the gradient of no input")
        require(grad_name("hidden") in outputs, f"{place}: no gradient of the hidden states")
    lost = forward.keys() - {info.of for info in infos}
    lost -= {graph.file for name, graph in named if name in _FORWARD_ONLY}
    require(not lost or not infos, f"{where}: none for {min(lost, default='')!r}")
