"""The method of a run whose exact gradients are not to be had.

`auto` then learns feedback, or estimates where feedback cannot be had either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from edgezo_runtime.bundle.manifest import Manifest
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.scope import choose_scope
from edgezo_runtime.errors import EdgezoError, NoBackwardGraphsError, UnplacedNodeError, UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader
from edgezo_runtime.methods.catalogue import METHODS
from edgezo_runtime.training.carried_layout import carried_sites, carries_error
from edgezo_runtime.training.feedback_layout import FeedbackLayout
from edgezo_runtime.training.first_order_layout import why_no_first_order

_FEEDBACK = "feedback"

_Made = TypeVar("_Made")


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


def make_as_able(
    config: TuneConfig,
    settle: Callable[[TuneConfig], TuneConfig],
    make: Callable[[TuneConfig], _Made],
) -> tuple[_Made, str]:
    """Make a run with the first method that its device can run.

    Where the user leaves the method to `auto`, that is exact gradients, then feedback, then
    estimates; else it is what the user asks for.

    Args:
        config: as given.
        settle: chooses feedback where that is to be had; see `settle_method`.
        make: makes the run.
    Returns:
        The run, and why it does without gradients that `auto` would take; empty if it has them.
    Raises:
        NoBackwardGraphsError: a method that was asked for needs graphs that the bundle lacks.
        UnplacedNodeError: the device cannot run these graphs.
    """
    first: EdgezoError | None = None
    for own in _ways(config, settle):
        try:
            return make(own), "" if first is None else str(first)
        except (NoBackwardGraphsError, UnplacedNodeError) as error:
            first = first or error
    assert first is not None
    raise first


def _ways(config: TuneConfig, settle: Callable[[TuneConfig], TuneConfig]) -> Iterator[TuneConfig]:
    """The configurations to try, the best first."""
    yield (last := settle(config))
    if config.first_order not in ("auto", 0) or not leaves_to_feedback(config):
        return
    estimates = dataclasses.replace(config, first_order=0)
    for own in (settle(estimates), estimates):
        if own != last:
            yield (last := own)
