"""The method of a run whose exact gradients are not to be had: `auto` then learns feedback."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.scope import choose_scope
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.training.carried_layout import carried_sites, carries_error
from edgezo_runtime.training.feedback_layout import FeedbackLayout
from edgezo_runtime.training.first_order_layout import why_no_first_order

_FEEDBACK = "feedback"


def settle_method(
    config: TuneConfig,
    manifest: Manifest,
    examples: ExampleSet,
    *,
    adapter: bool = False,
    resumed: RunFolder | None = None,
) -> TuneConfig:
    """The configuration with feedback in the place of `auto`, where `auto` would estimate.

    That is where `first_order` is 0, or the bundle has no backward graphs; and where bundle and
    rows allow feedback, and no setting asks for estimates.

    Args:
        config: as given.
        manifest: of the bundle.
        examples: training data.
        adapter: does the run begin with an adapter? Feedback cannot.
        resumed: the run that is gone on with, if the folder holds one: what earlier versions began
            with estimates goes on with them.
    Raises:
        RunFileError: the journal of that run is damaged.
    """
    if adapter or not leaves_to_feedback(config):
        return config
    if resumed is not None and resumed.has_journal():
        header = RunHeader.read(read_journal(resumed.journal).header.meta, resumed.journal)
        if header.config.method == config.method:
            return config
    if config.first_order != 0 and (
        config.first_order != "auto" or why_no_first_order(manifest) is None
    ):
        return config
    settings: dict[str, Any] = {**METHODS[_FEEDBACK].settings}
    feedback = dataclasses.replace(config, method=_FEEDBACK, **settings)
    try:
        graphs = manifest.graphs
        scope = choose_scope(config.scope, examples, graphs.continues, manifest.scheme)
        if carries_error(feedback, examples.kind, scope):
            carried_sites(manifest, feedback)
        else:
            FeedbackLayout(manifest, feedback)
    except UsageError:  # the run estimates, as these settings do wherever feedback cannot be had
        return config
    return feedback


def leaves_to_feedback(config: TuneConfig) -> bool:
    """Does a configuration leave the method to `auto`, and nothing in it ask for estimates?"""
    plain = dataclasses.replace(config, first_order="auto")
    return plain.wants_first_order and config.modules == "auto" and config.prefix_cache
