"""The sites of a run whose error is carried back along the residual stream: `feedback` on texts."""

from __future__ import annotations

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import Kind
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.carried_error_pass import CarriedSite
from edgezo_runtime.errors import UsageError
from edgezo_runtime.training.feedback_layout import learns_feedback
from edgezo_runtime.training.feedback_sites import (
    FeedbackSite,
    by_block,
    feedback_sites,
    why_no_feedback,
)
from edgezo_runtime.training.selection import select_blocks

_LATE = 0.72
"""Share of the depth from which on `blocks` auto has sites: before, little of the error is left."""

CARRIED_SHARE = 0.25
"""Learning rate as a share of that of exact first-order steps of the same tensors; the carried
error points the same way in fewer of them."""


def carries_error(config: TuneConfig, kind: Kind, scope: Scope) -> bool:
    """Does a run carry the error of whole sequences back?

    Label words of one token at the end of prompts have feedback of their own.
    """
    return learns_feedback(config) and (kind != "labels" or scope != "answer")


def carried_sites(manifest: Manifest, config: TuneConfig) -> dict[int, tuple[CarriedSite, ...]]:
    """The sites by block, with the factors that the bundle trains.

    Raises:
        UsageError: the bundle has no such sites, no graphs for the error, or `blocks` leaves none.
    """
    reason = why_no_feedback(manifest)
    if reason is None and isinstance(manifest.backward, str):
        reason = f"the bundle has no graph for the error at its last states: {manifest.backward}"
    if reason is not None:
        raise UsageError(
            f"`method` {config.method}: {reason}; run 'edgezo export' again, or choose another "
            f"method"
        )
    if config.objective != "loss":
        raise UsageError(
            f"`objective` {config.objective}: feedback on texts takes loss only; choose another "
            f"method, or label words of one token behind prompts that end in the same token"
        )
    trains = {info.name for info in manifest.trainables if info.trains}
    scale = manifest.scheme.scale

    def carried(site: FeedbackSite) -> CarriedSite:
        own = frozenset({site.name_a, site.name_b} & trains)
        return CarriedSite(site.tap, site.name_a, site.name_b, scale, own, site.last, site.slope)

    found = by_block(feedback_sites(manifest), carried)
    able = list(found)
    if config.blocks == "auto":
        total = manifest.model.num_blocks
        able = [block for block in found if (block + 0.5) / total > _LATE] or able
    else:
        able = select_blocks(config, able)
    return {block: found[block] for block in able}


def carried_count(manifest: Manifest, config: TuneConfig) -> int:
    """Number of last blocks from the first site on.

    Raises:
        UsageError: as for `carried_sites`.
    """
    return manifest.model.num_blocks - min(carried_sites(manifest, config))
