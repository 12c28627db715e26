"""Power cuts under `edgezo tune`: configuration, metrics and receipt are there as well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.c_library import build
from tests.crash.crash_states import all_cuts
from tests.crash.disk_library import SOURCE, read_log
from tests.crash.full_disk_runs import tune
from tests.crash.sampling import sample
from tests.edgezo.conftest import Tiny


@pytest.mark.slow
def test_the_same_command_ends_the_same_after_any_cut(
    tiny: Tiny, tmp_path: Path, unsynced: None
) -> None:
    library = build(tmp_path, SOURCE)
    (tmp_path / "whole").mkdir()
    args = [
        str(tiny.int8), "--budget", "8GB", "--data", str(tiny.data), "--steps", "4",
        "--batch-size", "8", "--threads", "1", "--max-time", "0", "--save-every", "2",
        "--first-order", "0", "--lr", "0.1", "--eps", "0.1",
    ]  # fmt: skip
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.recorded_command",
         tmp_path / "whole", tmp_path / "log", *args],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)
    cuts, tried = all_cuts(read_log(tmp_path / "log"), tmp_path / "certain")
    for number, cut in enumerate(sample(cuts, 6)):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        cut.state.write(folder)
        where = f"cut after {cut.state.point} operations, {cut.state.what}"
        again = tune(args, folder)
        assert again.exit_code == 0, f"{where}: {again.stderr}"
        found = json.loads(again.stdout)
        for name in ("steps", "adapter_sha256", "accuracy_before", "loss_after"):
            assert found[name] == expected[name], f"{name}, {where}"
    print(f"{tried} schedules, {len(cuts)} disks")
