"""How an exported adapter is used, in the result of `edgezo adapter export`."""

from __future__ import annotations

from typing import Any

from edgezo.cli.adapter.export_job import ExportJob
from edgezo.cli.files.row_reading import quoted


def usage_as_json(job: ExportJob) -> dict[str, Any]:
    """The tokens that the adapter acts on, and its prompts, for machines."""
    info, reading = job.adapter.info, job.adapter.info.reading
    return {
        "scope": info.scope,
        "invocation": list(info.invocation),
        "invocation_text": job.usage.invocation_text or None,
        "acts_on": job.usage.acts_on(),
        "elsewhere": job.usage.elsewhere(job.settings.format),
        "template": None if reading is None else reading.template,
        "labels": None if reading is None else list(reading.labels),
        "max_seq": None if reading is None else reading.max_seq,
    }


def usage_rows(job: ExportJob) -> list[tuple[str, str]]:
    """The same, for people."""
    rows = [("acts on", job.usage.acts_on())]
    elsewhere, reading = job.usage.elsewhere(job.settings.format), job.adapter.info.reading
    rows += [] if elsewhere is None else [("", elsewhere)]
    if reading is None:
        return [*rows, ("prompts", "not known; the adapter does not say how rows were read")]
    template = "none" if reading.template is None else quoted(reading.template)
    rows.append(("template", template))
    if reading.labels:
        rows.append(("labels", ", ".join(map(quoted, reading.labels))))
    return rows
