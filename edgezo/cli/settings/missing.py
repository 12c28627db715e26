"""What to give where a command lacks an option or an argument that it needs."""

from __future__ import annotations

import click

_RUNS = "'edgezo runs list FOLDER' shows those below a folder"
_BUNDLE = "give the folder that 'edgezo export' has written"
_ROWS = "give files of rows, or a folder with files named train, valid and test"

HINTS = {
    "budget": (
        "give the memory that the whole process may take: 750MB, 50% (of what is free), or auto "
        "(80% of it); 'edgezo plan --budget auto' with the same settings names the smallest size "
        "that is sufficient"
    ),
    "bundle": _BUNDLE,
    "export output": "give a new folder for the bundle, such as smollm2.bundle",
    "bundle quantize output": "give a new folder for the smaller bundle",
    "adapter import source": "give the folder of a LoRA that PEFT has saved",
    "adapter import output": "give a new file for the adapter, such as adapter.safetensors",
    "adapter export source": f"give the folder of a run ({_RUNS}), or an adapter file",
    "adapter export output": "give a new file or folder for the result, after the run",
    "replay journal": f"give the folder of a run, or its journal, after the bundle; {_RUNS}",
    "replay output": "give a new file for the adapter, such as adapter.safetensors",
    "report runs": f"give the folders of one run or several; {_RUNS}",
    "runs show run": f"give the folder of a run; {_RUNS}",
    "runs rm runs": f"give the folders of the runs to remove; {_RUNS}",
    "data": _ROWS,
}
"""Command and name of a parameter, or the name alone where it means the same everywhere -> what to
do."""


def hint(command: str, parameter: click.Parameter) -> str | None:
    """What to give for a parameter; None if nothing is known of it.

    Args:
        command: the verbs, such as "runs rm".
        parameter: what is missing.
    """
    name = str(parameter.name)
    return HINTS.get(f"{command} {name}", HINTS.get(name))


def explained(error: click.MissingParameter) -> click.MissingParameter:
    """The same error, with what to do; as it is where nothing is known of its parameter."""
    if error.ctx is None or error.param is None or error.message:
        return error
    found = hint(error.ctx.command_path.partition(" ")[2], error.param)
    if found is None:
        return error
    text = found[0].upper() + found[1:]
    return click.MissingParameter(text, error.ctx, error.param, error.param_hint, error.param_type)
