"""The division of a run's blocks, and what a step is told."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.errors import UsageError
from edgezo_runtime.noise import derive_seed
from edgezo_runtime.training.layout import RunLayout
from tests.runtime.tuner_runs import BASE


@pytest.mark.parametrize(
    ("given", "first_order", "blocks", "first", "exact"),
    [
        ({}, 0, [0, 1], 0, ()),
        ({"blocks": "1"}, 0, [1], 1, ()),
        ({"schedule": "last:1"}, 0, [1], 1, ()),
        ({"schedule": "cyclic"}, 0, [0, 1], 0, ()),
        ({}, 1, [0], 0, (1,)),
        ({}, 2, [], 0, (0, 1)),
        ({"blocks": "1"}, 1, [], 1, (1,)),
    ],
)
def test_estimates_are_for_what_first_order_steps_leave(
    bundle: Bundle,
    given: dict[str, str],
    first_order: int,
    blocks: list[int],
    first: int,
    exact: tuple[int, ...],
) -> None:
    config = dataclasses.replace(BASE, **given)  # type: ignore[arg-type]
    layout = RunLayout(bundle.manifest, config, 8, first_order)
    assert (layout.blocks, layout.first) == (blocks, first)
    assert (() if layout.first_order is None else layout.first_order.blocks) == exact
    trained = {info.name: info.block for info in bundle.manifest.trainables if info.trains}
    assert layout.trained == {name: block for name, block in trained.items() if block in blocks}
    assert layout.tensors([1]) == {name: block for name, block in trained.items() if block == 1}


def test_the_blocks_of_a_step_follow_the_schedule(bundle: Bundle) -> None:
    cyclic = RunLayout(bundle.manifest, dataclasses.replace(BASE, schedule="cyclic"), 8)
    assert [cyclic.active(step) for step in range(4)] == [(0,), (1,), (0,), (1,)]
    every = RunLayout(bundle.manifest, BASE, 8)
    assert every.active(3) == (0, 1)
    assert RunLayout(bundle.manifest, BASE, 8, 2).active(3) == ()


def test_a_step_is_told_its_seed_and_its_epoch(bundle: Bundle) -> None:
    layout = RunLayout(bundle.manifest, dataclasses.replace(BASE, seed=5, batch_size=3), 8)
    for step in range(9):
        info = layout.info(step, (1,), 0.25)
        assert info.seed == derive_seed(5, "step", step)
        assert (info.step, info.lr, info.blocks, info.batch_size) == (step, 0.25, (1,), 3)
        assert info.epoch == 3 * step // 8
    layout.grow(16)
    assert layout.info(8, (1,), 0.25).epoch == 3 * 8 // 16


def test_a_batch_fills_up_as_examples_come(bundle: Bundle) -> None:
    layout = RunLayout(bundle.manifest, dataclasses.replace(BASE, batch_size=4), 3)
    assert (layout.rows, layout.batch_size) == (3, 3)
    layout.grow(9)
    assert (layout.rows, layout.batch_size) == (9, 4)


def test_epochs_are_steps_of_so_many_examples(bundle: Bundle) -> None:
    config = dataclasses.replace(BASE, steps=0, epochs=2.0, batch_size=4)
    layout = RunLayout(bundle.manifest, config, 8)
    assert layout.config.steps == 2 * 8 // 4
    layout.grow(16)
    assert layout.config.steps == 2 * 16 // 4


def test_nothing_left_to_train_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="none of them has trainables"):
        RunLayout(bundle.manifest, dataclasses.replace(BASE, blocks="7"), 8)
