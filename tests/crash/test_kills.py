"""A few kills of every kind of run; `make crash` has hundreds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.kills import METHODS, campaign, options_of, tiny_task


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_killed_runs_end_with_the_same_adapter(tmp_path: Path, method: str) -> None:
    args = [*tiny_task(tmp_path), *options_of(method, steps=60)]
    (tmp_path / "runs").mkdir()
    tally = campaign(args, tmp_path / "runs", kills=3, generator=random.Random(0))
    assert tally.kills == 3
    assert tally.different == 0
