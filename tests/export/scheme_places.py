"""Places of a block, facts about a model, and edits run by themselves."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.schemes.scheme import Edit, ModelFacts, Origin, Place
from edgezo_export.schemes.site import Site
from tests.export.graph_runner import run

FACTS = ModelFacts(
    architecture="llama",
    layers=("down_proj", "k_proj", "q_proj", "up_proj", "v_proj"),
    num_blocks=4,
    hidden_size=8,
    vocab_size=20,
    max_seq=12,
    special_ids=frozenset({0, 1, 2}),
    embedding="embed.weight",
)
LINEAR = Place("linear", 1, "m.1.q_proj", 8, 6)
NORM = Place("norm", 1, "m.1.norm", 8, 8)
ENTRY = Place("entry", 0, "m.0", 8, 8)
ATTENTION = Place("attention", 1, "m.1", 2, 4)


class Arrays:
    """A checkpoint of a few arrays."""

    def __init__(self, **arrays: npt.NDArray[np.float32]) -> None:
        self.arrays = {name.replace("__", "."): value for name, value in arrays.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        return self.arrays[name].shape

    def read(self, name: str) -> npt.NDArray[np.float32]:
        return self.arrays[name]

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        return self.arrays[name][start:stop]


def facts(**changes: object) -> ModelFacts:
    return dataclasses.replace(FACTS, **changes)


def place(kind: Place, **changes: object) -> Place:
    return dataclasses.replace(kind, **changes)


def initial(edit: Edit, **arrays: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Initial values of an edit's tensors; shapes are checked."""
    values = list(edit.values(Origin(Arrays(**arrays), None)))
    assert [value.shape for value in values] == [info.shape for info in edit.tensors]
    return values


def applied(
    edit: Edit,
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.float32],
    tensors: list[npt.NDArray[np.float32]],
    active: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """What an edit makes of y (R, S, out), given x (R, S, in) and its tensors (P, ...)."""
    draft = GraphBuilder("edit", "m.1.")
    inputs = {"x": x, "y": y} | ({} if active is None else {"active": active})
    own = {
        name: draft.input(name, ir.DataType.FLOAT, ("rows", "tokens", *value.shape[2:]))
        for name, value in inputs.items()
    }
    like = draft.op("Shape", own["y"])
    result = edit.emit(Site(draft, own["x"], own["y"], like, own.get("active")))
    draft.output(result, "result", ir.DataType.FLOAT, ("rows", "tokens", y.shape[-1]))
    names = [binding.input for binding in draft.trainables]
    return run(draft, inputs | dict(zip(names, tensors, strict=True)))["result"]


def draw(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).normal(0, 1, shape).astype(np.float32)
