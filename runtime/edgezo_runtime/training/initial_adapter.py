"""The initial adapter of a run, and the reading of rows that comes with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgezo_runtime.adapters.adapter import Adapter, load_adapter
from edgezo_runtime.adapters.saved_settings import settings_of_run
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.scope import ACTS_ON
from edgezo_runtime.errors import UsageError
from edgezo_runtime.journal.journal import read_journal
from edgezo_runtime.journal.run_folder import RunFolder
from edgezo_runtime.journal.run_header import RunHeader


def load_initial_adapter(adapter: Adapter | str | Path | None, run: RunFolder) -> Adapter | None:
    """Load the initial adapter, or the copy that the run stores if the original is gone.

    Args:
        adapter: the adapter, its file or its run folder; None for none.
        run: folder of the run.
    Raises:
        RunFileError: the file is not an adapter.
    """
    if not isinstance(adapter, str | Path):
        return adapter
    gone = not Path(adapter).exists() and run.has_journal() and run.start.exists()
    return load_adapter(run.start if gone else Path(adapter))


def known_reading(adapter: Adapter | None, run: RunFolder) -> Reading | None:
    """How rows were read before: by the run that the folder holds, else for the initial adapter.

    Args:
        adapter: the initial adapter; None for none.
        run: folder of the run.
    Raises:
        RunFileError: the journal of the run is damaged.
    """
    if run.has_journal():
        header = RunHeader.read(read_journal(run.journal).header.meta, run.journal)
        return settings_of_run(run)[0] or header.reading
    return None if adapter is None else adapter.info.reading


def settle_initial_adapter(
    adapter: Adapter | None, run: RunFolder, config: TuneConfig
) -> tuple[Adapter | None, TuneConfig]:
    """Settle the initial adapter of a run, and the configuration with the scope of that adapter.

    Args:
        adapter: the adapter that was given; None takes the copy that the run stores, if any.
        run: folder of the run.
        config: how to tune.
    Raises:
        UsageError: the adapter has another scope than the configuration.
    """
    if adapter is None and run.has_journal() and run.start.exists():
        adapter = load_adapter(run.start)
    if adapter is None:
        return None, config
    own = adapter.info.scope
    if config.scope not in ("auto", own):
        raise UsageError(
            f"`scope` {config.scope}: {adapter.path} acts on {ACTS_ON[own]}; use `scope={own}`"
        )
    return adapter, dataclasses.replace(config, scope=own)
