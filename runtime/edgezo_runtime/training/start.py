"""The adapter that a run begins from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgezo_runtime.adapters.adapter import Adapter, load_adapter
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.run_folder import RunFolder


def read_start(start: Adapter | str | Path | None, run: RunFolder) -> Adapter | None:
    """The adapter that a run is to begin from; where it is gone, the copy of a run that is there.

    Args:
        start: it, its file or its run folder; None for none.
        run: folder of the run.
    Raises:
        RunFileError: the file is no adapter.
    """
    if not isinstance(start, str | Path):
        return start
    gone = not Path(start).exists() and run.has_journal() and run.start.exists()
    return load_adapter(run.start if gone else Path(start))


def begin_from(
    start: Adapter | None, run: RunFolder, config: TuneConfig
) -> tuple[Adapter | None, TuneConfig]:
    """The adapter that a run begins from, its own copy where it has one; and how the run acts then.

    Args:
        start: what was asked for.
        run: folder of the run.
        config: how to tune.
    Raises:
        UsageError: an adapter acts on other tokens than were asked for.
    """
    if start is None and run.has_journal() and run.start.exists():
        start = load_adapter(run.start)
    if start is None:
        return None, config
    own = start.info.scope
    if config.scope not in ("auto", own):
        raise UsageError(
            f"--scope {config.scope}: {start.path} acts on {_ACTS[own]}; use --scope {own}"
        )
    return start, dataclasses.replace(config, scope=own)


_ACTS = {"all": "every token", "answer": "answers only"}
