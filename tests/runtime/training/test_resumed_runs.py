"""Runs that are interrupted end with the bits of runs that are not."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.example_set import ExampleSet, Kind
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.engine.prefix_cache import AnswerCache
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.methods.rules import RULES
from tests.conftest import Exported
from tests.runtime.tiny_sets import ONE_TOKEN_WORDS, random_set
from tests.runtime.tuner_runs import (
    BASE,
    FIRST_ORDER,
    SIZES,
    bits,
    losses_of,
    resumed_bits,
    run_to_the_end,
)

pytestmark = pytest.mark.usefixtures("unsynced")


@dataclass(frozen=True, slots=True)
class Case:
    """A run, and how it is interrupted.

    Attributes:
        config: how to tune.
        kind: of the examples.
        same_end: do all prompts end with the same token, so that adapters act on answers?
        steps: steps before the interruption.
        cut: bytes that the journal loses then.
        snapshot_at: step before which a snapshot is written, besides those of the configuration.
        journal_alone: is the snapshot lost, too?
    """

    config: TuneConfig
    kind: Kind = "labels"
    same_end: bool = False
    steps: int = 3
    cut: int = 7
    snapshot_at: int | None = None
    journal_alone: bool = False


SHAPED: dict[str, Any] = {"normalize": True, "average": 0.9}
PLAIN: dict[str, Any] = {"normalize": False, "average": 0.0}


def ruled(rule: str, schedule: str, **more: Any) -> TuneConfig:
    return dataclasses.replace(BASE, rule=rule, schedule=schedule, steps=4, lr=0.01, **more)


HOT = dataclasses.replace(
    BASE, steps=60, batch_size=8, scope="all", lr=3e3, eps=0.1, lr_schedule="constant", horizon=0,
    save_every=17,
)  # fmt: skip
"""A run that diverges, and rolls back."""

RULED = [(rule, schedule) for rule in RULES for schedule in ("all", "cyclic", "random:1", "last:1")]

CASES = {
    **{f"{r}-{s}-shaped": Case(ruled(r, s, **SHAPED), snapshot_at=2) for r, s in RULED},
    **{f"{r}-{s}-plain": Case(ruled(r, s, **PLAIN)) for r, s in RULED},
    **{
        f"answers-{s}": Case(
            dataclasses.replace(BASE, schedule=s, rule="momentum"), same_end=True, snapshot_at=2
        )
        for s in ("all", "random:1")
    },
    "candidates": Case(
        dataclasses.replace(BASE, schedule="last:1", steps=4), "candidates", steps=2, cut=3
    ),
    # The snapshot is that of step 0: the journal alone brings four gradients back.
    **{
        f"first-order-{kind}": Case(FIRST_ORDER, kind, steps=4, cut=0)
        for kind in ("labels", "candidates", "completion")
    },
    "rolled-back": Case(HOT, steps=45, cut=0),
    "rolled-back-journal-alone": Case(HOT, steps=45, cut=0, journal_alone=True),
}


def examples_of(bundle: Bundle, kind: Kind, *, same_end: bool = False) -> ExampleSet:
    examples = random_set(kind, SIZES, bundle.manifest.tokenizer.pad_id)
    if same_end:
        for example in examples:
            example.tokens[-1] = 42
    return examples


@dataclass(frozen=True, slots=True)
class Whole:
    """How a run ends that nothing interrupts.

    Attributes:
        end: the bits of its state.
        losses: recorded ones of every step.
        events: steps in which something was noticed.
        scope: tokens that adapters act on.
    """

    end: dict[str, bytes]
    losses: list[bytes]
    events: list[int]
    scope: Scope


Undisturbed = Callable[[TuneConfig, Kind, bool], Whole]


@pytest.fixture(scope="module")
def undisturbed(
    exported: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """Runs by their configuration, kind of examples, and whether prompts have the same end."""
    bundle = exported("llama").bundle("fp32").bundle

    @functools.cache
    def run(config: TuneConfig, kind: Kind, same_end: bool) -> Whole:
        folder = tmp_path_factory.mktemp("whole")
        examples = examples_of(bundle, kind, same_end=same_end)
        with Tuner.open(bundle, examples, config, folder) as tuner:
            events = [report.step for report in tuner if report.events]
            end, scope = bits(tuner), tuner.run.scope
        return Whole(end, losses_of(folder / "journal.bin"), events, scope)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_cut_run_ends_with_the_same_bits(
    bundle: Bundle, undisturbed: Undisturbed, tmp_path: Path, name: str
) -> None:
    """Every method has its turn in `tests/contract/test_resume.py`."""
    case = CASES[name]
    examples = examples_of(bundle, case.kind, same_end=case.same_end)
    whole = undisturbed(case.config, case.kind, case.same_end)
    assert (whole.scope == "answer") == case.same_end
    if case.config is HOT:
        assert min(whole.events) < case.steps
    found = resumed_bits(
        bundle, examples, case.config, tmp_path, case.steps, cut=case.cut,
        snapshot_at=case.snapshot_at, journal_alone=case.journal_alone,
    )  # fmt: skip
    assert found == whole.end
    assert losses_of(tmp_path / "journal.bin") == whole.losses


def test_an_example_has_several_sequences(bundle: Bundle) -> None:
    """Those of "candidates" above share their directions."""
    examples = random_set("candidates", SIZES, bundle.manifest.tokenizer.pad_id)
    assert len(ONE_TOKEN_WORDS) == examples.sequences_per_example == 3


@pytest.mark.parametrize("schedule", ["all", "random:1"])
def test_a_run_on_answers_is_another_than_on_whole_prompts(
    bundle: Bundle, tmp_path: Path, schedule: str
) -> None:
    examples = examples_of(bundle, "labels", same_end=True)
    config = dataclasses.replace(BASE, schedule=schedule, rule="momentum")
    with Tuner.open(bundle, examples, config, tmp_path / "answers") as tuner:
        assert isinstance(tuner.run.probes.cache, AnswerCache)
        assert tuner.step().tokens == 4  # one a row
        list(tuner)
        whole = bits(tuner)
    everywhere = dataclasses.replace(config, scope="all")
    assert run_to_the_end(bundle, examples, everywhere, tmp_path / "all") != whole


@pytest.mark.parametrize(
    ("steps", "cut", "snapshot_at"),
    [(0, 0, None), (1, 0, None), (1, 1, None), (6, 0, 3), (6, 5, 5), (4, 150, 1), (5, 0, 0)],
)
def test_a_run_cut_anywhere_ends_with_the_same_bits(
    bundle: Bundle,
    examples: ExampleSet,
    undisturbed: Undisturbed,
    tmp_path: Path,
    steps: int,
    cut: int,
    snapshot_at: int | None,
) -> None:
    config = dataclasses.replace(BASE, rule="adam", lr=0.01, schedule="random:1")
    found = resumed_bits(
        bundle, examples, config, tmp_path, steps, cut=cut, snapshot_at=snapshot_at
    )
    assert found == undisturbed(config, "labels", False).end


def test_snapshots_on_the_way_change_nothing(bundle, examples, tmp_path):
    often = dataclasses.replace(BASE, save_every=1, rule="adam", lr=0.01)
    rarely = dataclasses.replace(often, save_every=1000)
    expected = run_to_the_end(bundle, examples, rarely, tmp_path / "rarely")
    assert run_to_the_end(bundle, examples, often, tmp_path / "often") == expected
    (tmp_path / "often" / "snapshot.safetensors").unlink()
    # from the journal alone
    assert run_to_the_end(bundle, examples, often, tmp_path / "often", resume=True) == expected


def test_a_snapshot_ahead_of_the_journal_is_not_used(bundle, examples, tmp_path):
    """A disk that lost what it had called safe. Pins a journal with steps left out."""
    config = dataclasses.replace(BASE, rule="adam", lr=0.01)
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    options = {"cut": 100, "snapshot_at": 4}
    assert resumed_bits(bundle, examples, config, tmp_path / "cut", 5, **options) == whole
    records = read_journal(tmp_path / "cut" / "journal.bin").records
    assert [record.step for record in records] == list(range(6))
    assert run_to_the_end(bundle, examples, config, tmp_path / "cut", resume=True) == whole


def test_the_prefix_cache_of_a_run_cut_off_is_made_again(bundle, examples, tmp_path):
    config = dataclasses.replace(BASE, schedule="last:1")
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    with Tuner.open(bundle, examples, config, tmp_path / "cut") as tuner:
        tuner.step()
    (tmp_path / "cut" / "prefix.cache").write_bytes(b"\xff" * 10_000)
    assert run_to_the_end(bundle, examples, config, tmp_path / "cut", resume=True) == whole
