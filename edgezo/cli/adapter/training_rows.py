"""The rows that an adapter was tuned on, for figures about its export."""

from __future__ import annotations

from edgezo.cli.adapter.export_job import ExportJob
from edgezo.cli.files.task_data import paths_of_data
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.files.folders import resolve
from edgezo_runtime.data.row_reader import RowReader
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.errors import DataError

_LONGEST = 128
"""Most tokens of a row: enough for the figures, and soon scored."""


class RowsGoneError(DataError):
    """The file of the rows is not where the run found it."""


def training_rows(job: ExportJob, bundle: Bundle, limit: int) -> ExampleSet | None:
    """The first rows that the run was tuned on; None if an adapter file does not name them.

    Args:
        job: the export.
        bundle: the model.
        limit: number of rows.
    Raises:
        RowsGoneError: the file is gone.
        DataError: a row is wrong.
    """
    data, reading = job.run_config().get("data"), job.adapter.info.reading
    data = [data] if isinstance(data, str) else data
    if not isinstance(data, list) or not data or reading is None:
        return None
    try:
        files = resolve(paths_of_data(list(map(str, data))), "train")
    except DataError as error:
        raise RowsGoneError(str(error)) from error
    longest = min(_LONGEST, reading.max_seq, bundle.manifest.model.max_seq)
    settings = reading.settings() | {"max_seq": longest}
    return RowReader(open_tokenizer(bundle), **settings).read(files, limit=limit)
