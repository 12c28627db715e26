"""Code pages that lack characters of a text."""

from __future__ import annotations

import io
import json
import sys

import pytest

from edgezo.cli.chat.lines import Lines
from edgezo.cli.terminal.code_page import forgive_code_pages
from edgezo.cli.terminal.output import print_result
from edgezo_runtime.errors import UsageError

TEXT = "caf\u00e9 \u6674 \U0001f3af"


def written(monkeypatch: pytest.MonkeyPatch, encoding: str) -> io.BytesIO:
    """Where stdout of an encoding writes to."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    return raw


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", TEXT.encode()),
        ("cp1252", b"caf\xe9 \\u6674 \\U0001f3af"),
        ("ascii", b"caf\\xe9 \\u6674 \\U0001f3af"),
    ],
)
def test_a_text_ends_no_command(
    monkeypatch: pytest.MonkeyPatch, encoding: str, told: bytes
) -> None:
    """`edgezo chat` ended with a traceback at the first Chinese character on a Windows pipe."""
    raw = written(monkeypatch, encoding)
    forgive_code_pages()
    sys.stdout.write(TEXT)
    assert raw.getvalue() == told


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_json_stays_json(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    raw = written(monkeypatch, encoding)
    forgive_code_pages()
    print_result({"text": TEXT}, [], as_json=True)
    assert json.loads(raw.getvalue().decode(encoding)) == {"text": TEXT}


def test_bytes_that_are_no_text_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO("\u6674\n".encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(UsageError, match="stdin: byte 0xe6 is no character in ascii; write UTF-8"):
        Lines().read()
