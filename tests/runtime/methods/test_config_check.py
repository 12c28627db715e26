"""The configuration of a run: what is refused, what is part of its identity, which blocks train."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from edgezo_runtime.bundle.trainables import TrainableInfo
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.methods.config_check import check_config
from edgezo_runtime.training.selection import select_blocks, select_tensors


def test_the_defaults_are_fine() -> None:
    check_config(TuneConfig())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("method", "mezo", "`method` mezo: expected one of auto, zo-sgd"),
        ("rule", "lion", "`rule` lion: expected one of"),
        ("lr_schedule", "step", "`lr_schedule` step: expected one of"),
        ("noise", "uniform", "`noise` uniform: expected rademacher or gaussian"),
        ("schedule", "sometimes", "'sometimes': expected one of"),
        ("schedule", "last:0", "needs 1 block per step or more"),
        ("lr", 0.0, "`lr` 0.0: must be a number above zero"),
        ("lr", math.nan, "`lr` nan"),
        ("eps", -1e-3, "`eps` -0.001"),
        ("eps", math.inf, "`eps` inf"),
        ("clip", -1.0, "`clip` -1.0"),
        ("clip", math.inf, "`clip` inf"),
        ("lr", "best", "`lr` best: must be a number above zero, auto or published"),
        ("batch_size", 0, "`batch_size` 0: must be 1 or more"),
        ("save_every", 0, "`save_every` 0: must be 1 or more"),
        ("steps", -1, "`steps` -1: must be 0 or more"),
        ("seed", -1, "`seed` -1: must be 0 or more"),
        ("seed", 2**64, "must be below"),
        ("max_time_s", -1.0, "`max_time_s` -1.0: must be 0 seconds or more"),
        ("epochs", -1.0, "`epochs` -1.0: must be auto or a number of 0 or more"),
        ("epochs", math.inf, "`epochs` inf"),
        ("first_order", -1, "`first_order` -1: must be 0 or more"),
        ("first_order_lr", 0.0, "`first_order_lr` 0.0: must be auto or a number above zero"),
        ("max_time_s", math.nan, "`max_time_s` nan"),
        ("max_time_s", 0.0, "a run needs an end"),
        ("average", 1.0, r"`average` 1.0: must be in \[0, 1\)"),
        ("average", math.nan, "`average` nan"),
    ],
)
def test_values_that_make_no_sense_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_config(dataclasses.replace(TuneConfig(), **{field: value}))


def test_the_ends_of_the_ranges_are_fine() -> None:
    check_config(
        TuneConfig(seed=2**64 - 1, average=0.0, clip=0.0, steps=1, max_time_s=0.0, batch_size=1)
    )


def test_the_identity_has_all_that_changes_the_numbers() -> None:
    names = {field.name for field in dataclasses.fields(TuneConfig)}
    assert names - TuneConfig().identity().keys() == {"steps", "max_time_s", "save_every"}
    assert TuneConfig(lr=0.5).identity()["lr"] == 0.5


def test_every_field_has_a_help() -> None:
    assert all(field.metadata["help"] for field in dataclasses.fields(TuneConfig))


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


@pytest.mark.parametrize(
    "given",
    [{"first_order": 0}, {"method": "zo-sgd"}, {"lr": 0.1}, {"noise": "gaussian"}],
    ids=str,
)
def test_a_rate_of_first_order_steps_needs_some(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"`first_order_lr` 0.5: no block takes first-order steps"):
        check_config(method_config(**{"method": "auto", "first_order_lr": 0.5, **given}))
    check_config(TuneConfig(first_order_lr=0.5))


def test_passes_over_the_data_end_a_run() -> None:
    check_config(TuneConfig(epochs=0.5, max_time_s=0))
    with pytest.raises(UsageError, match="give one of them, or `epochs`"):
        check_config(TuneConfig(max_time_s=0))


@pytest.mark.parametrize("given", [{"normalize": True}, {"clip": 2.0}], ids=str)
def test_steps_that_were_evaluated_are_not_shaped(given: dict[str, Any]) -> None:
    check_config(method_config("zo-sgd-cons"))
    with pytest.raises(UsageError, match="leave out `normalize` and `clip`"):
        check_config(method_config("zo-sgd-cons", **given))


# --- what "auto" stands for ---


@pytest.mark.parametrize(
    ("given", "first_order", "batch", "steps"),
    [
        ({}, True, 16, 250),
        ({}, False, 128, 0),
        ({"steps": 7}, True, 16, 7),
        ({"steps": 7, "epochs": 0.008}, False, 128, 1),
        ({"batch_size": 300, "epochs": 2}, False, 300, 7),
        ({"batch_size": 5000, "epochs": 2}, True, 5000, 2),
    ],
)
def test_batches_and_the_end_of_a_run(
    given: dict[str, Any], first_order: bool, batch: int, steps: int
) -> None:
    settled = TuneConfig(**given).settled(1000, all_first_order=first_order)
    assert (settled.batch_size, settled.steps) == (batch, steps)


@pytest.mark.parametrize(
    ("given", "wants"),
    [
        ({}, True),
        ({"first_order": 0}, False),
        ({"method": "zo-sgd"}, False),
        ({"lr": 0.1}, False),
        ({"eps": 0.1}, False),
        ({"rule": "adam"}, False),
        ({"schedule": "last:3"}, False),
        ({"normalize": False}, False),
        ({"clip": 0.0}, False),
        ({"blocks": "1-2", "scope": "all", "steps": 3}, True),
    ],
    ids=str,
)
def test_who_asks_for_estimates_gets_them(given: dict[str, Any], wants: bool) -> None:
    assert TuneConfig(**given).wants_first_order is wants


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
