"""edgezo.toml: settings of a run, with comments."""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgezo.data_check.inspection import Inspection
from edgezo_runtime.errors import printable

_HEAD = """\
# Settings of a run. Tune with them:
#
#     edgezo tune --config {name} -o run
#
# Flags override what stands here. 'edgezo tune --help' lists every setting; those that are not here
# have their defaults.
"""


def settings_text(
    name: str,
    found: Inspection,
    *,
    bundle: str,
    data: Sequence[str],
    template: str | None,
    labels: Sequence[str],
    budget: str,
) -> str:
    """The text of the file.

    Args:
        name: of the file, for the command.
        found: what the data hold.
        bundle: path of the model.
        data: paths of the rows.
        template: prompt; None where rows need none.
        labels: label words; empty without classes.
        budget: memory of the process.
    """
    parts = [_HEAD.format(name=name), "# The model, as 'edgezo export' made it.\n"]
    parts[-1] += _line("bundle", bundle)
    facts = [f"# {printable(own.text, 200)}" for own in found.findings if own.name != "margin"]
    parts.append("\n".join(["# The rows.", *facts]) + "\n" + _line("data", list(data)))
    if template is not None:
        scored = [
            f"# {own.margin:+.2f} nats, {100 * own.accuracy:.0f} % right: "
            f"{printable(own.proposal.labels, 200)} after {printable(repr(own.proposal.template))}"
            for own in found.scored
        ]
        head = ["# The prompt of a row; fields of the row stand in braces."]
        head += ["# Zero-shot margins of what was tried:", *scored] if scored else []
        parts.append("\n".join(head) + "\n" + _line("template", template))
    if labels:
        told = "# The label word of each class, in class order. Mind the spaces: most tokenizers\n"
        parts.append(
            told + "# have a word with a space before it.\n" + _line("label", list(labels))
        )
    if found.max_seq is not None:
        told = "# The longest row, in tokens; longer ones are cut. Memory grows with it.\n"
        parts.append(told + _line("max_seq", found.max_seq))
    parts.append(
        "# Memory that the whole process may take: 750MB, 8GB, a share of what is free such as\n"
        '# "50%", or "auto".\n' + _line("budget", budget)
    )
    parts.append(
        "# A run ends after four passes or five minutes, unless one of these is set:\n"
        '# epochs = 2\n# steps = 500\n# max_time = "10m"\n'
    )
    return "\n".join(parts)


def _line(name: str, value: object) -> str:
    """A setting in TOML, whose strings, numbers and lists of strings are those of JSON."""
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{name} = {text}\n"
