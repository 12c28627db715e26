"""The sites of learned feedback: adapters beside the layers whose inputs the blocks give out.

States are perturbed behind blocks. The change that a block's last layer makes is the same change of
the states behind the block. An earlier layer, which ends the attention, adds to states between two
places that are perturbed, and the logits answer to it about as they answer to both.

The label logits of C classes change in C - 1 directions that the loss can tell apart: adding the
same number to all of them changes nothing. A site of rank r carries r of these directions; sites
take turns where r is less than C - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.bundle.manifest_types import LAYER_INPUT, LAYER_SLOPE
from edgezo_runtime.errors import UsageError

Float32 = npt.NDArray[np.float32]

Made = TypeVar("Made")

REACH = 2
"""Blocks on each side whose estimates are added up; docs/feedback.md has how alike they are."""


@dataclass(frozen=True, slots=True)
class FeedbackSite:
    """An adapter `y += scale * B A x` beside a layer that a block adds to the residual.

    Attributes:
        block: the block.
        tap: output of the block that is x.
        name_a: A (r, in), which trains.
        name_b: B (H, r), the directions.
        shape_a: (r, in).
        shape_b: (H, r).
        last: does nothing change the states between the layer and the end of the block?
        slope: output of the block that is the slope (H,) of the norm between the layer and the
            residual; None if the layer's output is added as it is.
    """

    block: int
    tap: str
    name_a: str
    name_b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    last: bool = True
    slope: str | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs of the block that tell of the site."""
        return (self.tap,) if self.slope is None else (self.tap, self.slope)

    @property
    def rank(self) -> int:
        """r."""
        return self.shape_a[0]


def why_no_feedback(manifest: Manifest) -> str | None:
    """Why a bundle has no site; None if it has one."""
    if manifest.scheme.kind != "lora":
        return f"feedback trains LoRA, in this bundle {manifest.scheme.kind} trains"
    if manifest.model.task != "causal-lm":
        return (
            "the model is an encoder: every token reads the scored one's states in every block, so "
            "no error at the end tells what a block should change"
        )
    if not manifest.graphs.continues:
        return "the blocks of this model cannot continue from cached prompts"
    outputs = [tensor.name for graph in manifest.graphs.blocks for tensor in graph.outputs]
    if not any(name.startswith(LAYER_INPUT) for name in outputs):
        return (
            "the blocks do not give out the inputs of the layers that add to the residual: either "
            "an earlier edgezo exported the bundle, or something other than an RMS norm, such as a "
            "layer norm, lies between these layers and the residual"
        )
    if not feedback_sites(manifest):
        return "the layers that the blocks add to the residual have no adapters"
    return None


def feedback_sites(manifest: Manifest) -> tuple[FeedbackSite, ...]:
    """The sites of a bundle, in the order of the model; empty if it has none."""
    infos = {(info.block, info.module, info.role): info for info in manifest.trainables}
    found: list[FeedbackSite] = []
    for block, graph in enumerate(manifest.graphs.blocks):
        taps = [own.name for own in graph.outputs if own.name.startswith(LAYER_INPUT)]
        slopes = {own.name for own in graph.outputs if own.name.startswith(LAYER_SLOPE)}
        for tap in taps:
            layer = tap.removeprefix(LAYER_INPUT)
            modules = {
                module
                for at, module, _ in infos
                if at == block and (module == layer or module.endswith(f".{layer}"))
            }
            for module in sorted(modules):
                a, b = (infos.get((block, module, role)) for role in ("lora_A", "lora_B"))
                if a is not None and b is not None and b.shape[0] == manifest.model.hidden_size:
                    last, slope = tap == taps[-1], f"{LAYER_SLOPE}{layer}"
                    site = FeedbackSite(
                        *(block, tap, a.name, b.name, a.shape, b.shape, last),
                        slope=slope if slope in slopes else None,
                    )
                    found.append(site)
    return tuple(found)


def by_block(
    sites: Sequence[FeedbackSite], make: Callable[[FeedbackSite], Made]
) -> dict[int, tuple[Made, ...]]:
    """Something of every site, by block."""
    found: dict[int, tuple[Made, ...]] = {}
    for site in sites:
        found[site.block] = (*found.get(site.block, ()), make(site))
    return found


def noise_name(block: int) -> str:
    """The name of the noise behind a block."""
    return f"hidden.{block}"


def heard(sites: Sequence[FeedbackSite]) -> list[tuple[int, ...]]:
    """The blocks whose noise tells what each site does to the logits.

    The logits answer to the states behind a block nearly as to those behind its neighbours, which
    have noise of their own. So the sum over neighbours is closer to each of them than its own part.
    """
    blocks = sorted({site.block for site in sites})
    found: list[tuple[int, ...]] = []
    for site in sites:
        first = site.block - REACH - (not site.last)
        found.append(tuple(own for own in blocks if first <= own <= site.block + REACH))
    return found


def contrasts(classes: int) -> Float32:
    """Orthonormal directions (C, C - 1) of label logits, each of sum zero (Helmert's).

    Raises:
        UsageError: there are fewer than two classes.
    """
    if classes < 2:
        raise UsageError(f"feedback needs two classes or more, not {classes}")
    found = np.zeros((classes, classes - 1), np.float64)
    for column in range(classes - 1):
        unit = 1 / math.sqrt((column + 1) * (column + 2))
        found[: column + 1, column] = unit
        found[column + 1, column] = -(column + 1) * unit
    return found.astype(np.float32)


def shares(sites: Sequence[FeedbackSite], count: int) -> list[tuple[int, ...]]:
    """Which of `count` directions each site carries, one per row of A that is used."""
    found: list[tuple[int, ...]] = []
    start = 0
    for site in sites:
        used = min(site.rank, count)
        found.append(tuple((start + row) % count for row in range(used)))
        start += used
    return found
