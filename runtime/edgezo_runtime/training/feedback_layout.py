"""The plan of a run that learns feedback: sites, pairs, and gradients in the journal."""

from __future__ import annotations

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.training.feedback_sites import feedback_sites, why_no_feedback
from edgezo_runtime.training.feedback_slopes import SlopeCodec
from edgezo_runtime.training.gradient_codec import GradientCodec
from edgezo_runtime.training.selection import select_blocks

FEEDBACK_LR = 3.0
"""Learning rate in logits, see `FeedbackEstimate.directions`; docs/feedback.md has the others that
were tried."""

FEEDBACK_EPS = 0.3
"""Perturbation of every number of a hidden state."""

_EARLY = 0.4
"""Share of the depth before which `blocks` auto has no sites: J ages fastest there."""


def learns_feedback(config: TuneConfig) -> bool:
    """Does the method of a run learn feedback?"""
    return METHODS[config.method].feedback


class FeedbackLayout:
    """The sites of a run and the pairs that their directions are estimated from.

    Args:
        manifest: of the bundle.
        config: selects the blocks, and says how many pairs.

    Attributes:
        sites: in the order of the model.
        first_block: the first block with a site.
        tensors: the block of each A, which train.
        pairs: pairs that are evaluated before the first step of A.
        codec: packs the gradients of the As for the journal.
        means: packs the mean inputs of the sites for the journal.
        slopes: packs the mean slopes of the norms behind the sites' layers, where there are any.
        mistakes: is the objective the expected share of wrong answers?

    Raises:
        UsageError: the bundle has no sites, or `blocks` leaves none.
    """

    def __init__(self, manifest: Manifest, config: TuneConfig) -> None:
        reason = why_no_feedback(manifest)
        if reason is not None:
            raise UsageError(
                f"`method` {config.method}: {reason}; run 'edgezo export' again, or choose another "
                f"method"
            )
        self.mistakes = config.objective == "accuracy"
        every = feedback_sites(manifest)
        if config.blocks == "auto":
            total = manifest.model.num_blocks
            late = [site for site in every if (site.block + 0.5) / total > _EARLY]
            self.sites = tuple(late or every)
        else:
            able = select_blocks(config, [site.block for site in every])
            self.sites = tuple(site for site in every if site.block in able)
        self.first_block = self.sites[0].block
        self.tensors = {site.name_a: site.block for site in self.sites}
        options = {**METHODS[config.method].options(), **config.options.given()}
        self.pairs = int(str(options["pairs"]))
        self.codec = GradientCodec({site.name_a: site.shape_a for site in self.sites})
        self.means = GradientCodec({site.name_a: site.shape_a[1:] for site in self.sites})
        self.slopes = SlopeCodec(self.sites)
        if self.pairs < 1:
            raise UsageError(f"`pairs` {self.pairs}: must be 1 or more")
