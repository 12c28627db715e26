"""Selection: which blocks and which tensors of a bundle train."""

from __future__ import annotations

import math

import pytest

from edgezo_runtime.bundle.trainables import TrainableInfo
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.training.selection import select_blocks, select_tensors


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, list(range(8, 21))),
        ({"schedule": "cyclic"}, list(range(30))),
        ({"schedule": "last:4"}, list(range(30))),  # the schedule chooses
        ({"blocks": "all"}, list(range(30))),
        ({"blocks": "8-10,25"}, [8, 9, 10, 25]),
        ({"blocks": "25, 3-4 ,3"}, [3, 4, 25]),
        ({"blocks": "28-99"}, [28, 29]),
        ({"blocks": "0-99999999999999999999"}, list(range(30))),  # pins a set of all of them
        ({"blocks": "5", "schedule": "random:3"}, [5]),
    ],
)
def test_blocks_that_train(options: dict[str, str], expected: list[int]) -> None:
    assert select_blocks(TuneConfig(**options), range(30)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("count", range(1, 40))
def test_auto_leaves_blocks_of_any_model(count: int) -> None:
    chosen = select_blocks(TuneConfig(), range(count))
    assert chosen
    assert len(chosen) <= max(2, math.ceil(count * 0.46))


def test_auto_goes_by_depth_not_by_number() -> None:
    """Only some blocks have trainables."""
    assert select_blocks(TuneConfig(), [1, 9, 11, 29]) == [9, 11]
    assert select_blocks(TuneConfig(), [0, 29]) == [0, 29]


@pytest.mark.parametrize("text", ["", "x", "3-", "-3", "1,,2", "1-2-3", "1.5", "²"])
def test_ranges_that_are_none_are_refused(text: str) -> None:
    """Pins a crash on digits that `int` does not take."""
    with pytest.raises(UsageError, match="expected auto, all, or ranges such as 8-19,25"):
        select_blocks(TuneConfig(blocks=text), range(30))


@pytest.mark.parametrize("text", ["30", "7-5"])
def test_ranges_without_trainables_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="none of them has trainables; the bundle has them in 0 t"):
        select_blocks(TuneConfig(blocks=text), range(30))


def test_a_bundle_without_trainables_is_refused() -> None:
    with pytest.raises(UsageError, match="the bundle has no trainables"):
        select_blocks(TuneConfig(), [])


LAYERS = {"q_proj": 64, "down_proj": 256, "o_proj": 64}


INFOS = [
    TrainableInfo(f"{layer}.{role}", 0, f"model.layers.0.{layer}", role, shape, trains)
    for layer, width in LAYERS.items()
    for role, shape, trains in (
        ("lora_A", (2, width), False),
        ("lora_B", (64, 2), True),
    )
]


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ("auto", ["down_proj"]),
        ("all", list(LAYERS)),
        ("q_proj,o_proj", ["q_proj", "o_proj"]),
        ("layers.0.q_proj", ["q_proj"]),
        ("down_proj, o_proj", ["down_proj", "o_proj"]),
    ],
)
def test_layers_that_estimates_train(modules: str, expected: list[str]) -> None:
    found = select_tensors(TuneConfig(modules=modules), INFOS)
    assert [info.name for info in found] == [f"{layer}.lora_B" for layer in expected]


def test_auto_takes_all_of_what_is_no_lora() -> None:
    infos = [TrainableInfo(f"{n}.g", 0, f"l.{n}", "gain", (4,), True) for n in ("k_proj", "v_proj")]
    assert select_tensors(TuneConfig(), infos) == infos


@pytest.mark.parametrize("modules", ["fc", "q_proj,fc"])
def test_layers_that_are_not_there_are_refused(modules: str) -> None:
    with pytest.raises(UsageError, match=r"'fc' has no .* has them in down_proj, o_proj, q_proj"):
        select_tensors(TuneConfig(modules=modules), INFOS)
