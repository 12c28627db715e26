"""An interrupted run of any method ends with the bits of an uninterrupted run."""

from __future__ import annotations

from typing import Any

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.methods.catalogue import method_config
from edgezo_runtime.training.replay import replay
from tests.contract.methods_table import TABLE
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import (
    SIZES,
    losses_of,
    resumed_bits,
    run_to_the_end,
    state_bits,
)

pytestmark = pytest.mark.usefixtures("unsynced")

STEPS = 5
SHORT: dict[str, dict[str, object]] = {
    "n-spsa": {"num_directions": 2},
    "adazeta": {"query_scale": 1.0, "query_growth": 1.0, "num_directions": 3},
    "subzero": {"subspace_rank": 1, "refresh": 2},
    "lozo": {"subspace_rank": 1, "refresh": 2},
    "lozo-m": {"subspace_rank": 1, "refresh": 2},
    "mezo-svrg": {"anchor_every": 3, "anchor_batches": 2},
    "hizoo": {"smoothing": 0.1},
    "helene": {"hessian_every": 2},
    "fzoo": {"num_directions": 3},
    "rloo": {"num_directions": 3},
    "lezo": {"schedule": "random:50%"},
}
"""Intervals that end within the run, few directions."""


def short_config(method: str, **given: object) -> TuneConfig:
    """Five steps on all blocks, with an average."""
    rest = {"blocks": "all", "modules": "all", "steps": STEPS, "max_time_s": 0, "batch_size": 2}
    rest |= {"average": 0.9}
    own = {**rest, **SHORT.get(method, {}), **given}
    return method_config(method, lr=0.01 if method != "grzo" else 1e-4, eps=0.01, **own)


@pytest.mark.slow
@pytest.mark.parametrize("method", TABLE)
def test_a_cut_run_ends_with_the_same_bits(bundle: Bundle, tmp_path: Any, method: str) -> None:
    """With a snapshot on the way, and from the journal alone."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    config = short_config(method)
    whole = run_to_the_end(bundle, examples, config, tmp_path / "whole")
    recorded = losses_of(tmp_path / "whole" / "journal.bin")
    assert len(recorded) == STEPS
    for name, options in (("cut", {"cut": 7, "snapshot_at": 2}), ("alone", {"cut": 7})):
        found = resumed_bits(bundle, examples, config, tmp_path / name, 4, **options)
        assert found == whole
        assert losses_of(tmp_path / name / "journal.bin") == recorded
    replayed = replay(bundle, tmp_path / "whole" / "journal.bin")
    assert state_bits(replayed.state) == whole
    (tmp_path / "whole" / "snapshot.safetensors").unlink()
    assert run_to_the_end(bundle, examples, config, tmp_path / "whole", resume=True) == whole


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "mezo-svrg", "hizoo", "lozo-m"])
def test_other_options_are_another_run(bundle: Bundle, tmp_path: Any, method: str) -> None:
    """Other seeds and other options of a method give other bits."""
    examples = random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
    whole = run_to_the_end(bundle, examples, short_config(method), tmp_path / "a")
    other = run_to_the_end(bundle, examples, short_config(method, seed=1), tmp_path / "b")
    assert all(whole[name] != other[name] for name in whole if name.endswith("lora_B"))
