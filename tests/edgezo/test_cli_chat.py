"""`edgezo chat`: on a pipe, and on a terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgezo.cli import main
from edgezo.cli.chat.lines import shown_safely
from edgezo.cli.chat.session import _speed
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from tests.bundles.tiny import speller
from tests.conftest import copied
from tests.edgezo.conftest import ROOT, Invoke, Tiny, tune_args, write_rows
from tests.runtime.chat_bundle import chat_bundle

FEW = ("--max-new-tokens", "6", "--threads", "1")


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return chat_bundle(tmp_path_factory.mktemp("chatty") / "bundle")


def chat(*args: object, lines: str) -> Result:
    """Chat on a pipe."""
    result = CliRunner().invoke(main, ["chat", *map(str, args)], input=lines)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def answer(bundle: Bundle, text: str, count: int = 6) -> str:
    """What a generator of its own writes behind a text."""
    tokenizer = open_tokenizer(bundle)
    prompt = tokenizer.encode(text, add_special=False)
    generator = Generator(Engine(bundle, threads=1), tokenizer)
    (found,) = generator.generate([prompt], bundle.trainables(), GenerationConfig(count))
    return found.stream.text


def test_lines_are_answered_by_the_template(chatty: Bundle) -> None:
    found = chat(chatty.root, *FEW, "--system", "good", lines="great film\nIt was\n")
    assert found.exit_code == 0
    first = answer(chatty, "<system>good<s><user>great film<s><assistant>")
    told = f"<system>good<s><user>great film<s><assistant>{first}<s><user>It was<s><assistant>"
    assert found.stdout == f"{first}\n{answer(chatty, told)}\n"
    second = found.stderr.splitlines()[-1]
    assert "per second" in second
    assert " known" in second  # the first turn was not read again


def test_what_was_said_can_be_forgotten_and_asked_again(chatty: Bundle, tmp_path: Path) -> None:
    saved = tmp_path / "said.jsonl"
    lines = [
        "great film", "/reset", "It was", "/again", f"/save {saved}", "/settings max-new-tokens 2",
        "\\/x", "/help", "/adapter", "/quit", "never answered",
    ]  # fmt: skip
    found = chat(chatty.root, *FEW, lines="\n".join(lines) + "\n")
    assert found.exit_code == 0, found.output
    said = answer(chatty, "<user>It was<s><assistant>")
    first = answer(chatty, "<user>great film<s><assistant>")
    told = f"<user>It was<s><assistant>{said}<s><user>/x<s><assistant>"
    assert found.stdout == f"{first}\n{said}\n{said}\n{answer(chatty, told, 2)}\n"
    row = json.loads(saved.read_text())
    assert [message["content"] for message in row["messages"]] == ["It was", said]
    assert "max_new_tokens  2" in found.stderr
    assert "/again" in found.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/adaptor on", "did you mean /adapter"),
        ("/adapter on", "there is no adapter"),
        ("/adapter x", "there are"),
        ("/again", "nothing was said"),
        ("/save", "name of a file"),
        ("/settings heat 5", "can be changed"),
        ("/settings top_p many", "not a number"),
        ("/settings top_p 2", "--top-p"),
        ("/settings max_new_tokens 256", "room for 256"),
        ("film " * 300, "there is room for"),
    ],
)
def test_wrong_lines_end_a_pipe_with_the_reason(chatty: Bundle, line: str, message: str) -> None:
    found = chat(chatty.root, *FEW, "--no-verify", lines=f"{line}\n")
    assert found.exit_code == 2
    assert message in found.stderr


def test_a_short_context_limits_answers(chatty: Bundle) -> None:
    """512 new tokens left no room for a prompt."""
    found = chat(chatty.root, "--threads", "1", "--context", 60, lines="great film\n")
    assert found.exit_code == 0
    assert "answers are limited to 30 tokens" in found.stderr
    assert found.stdout == answer(chatty, "<user>great film<s><assistant>", 30) + "\n"
    assert chat(chatty.root, "--context", 257, lines="").exit_code == 2
    small = chat(chatty.root, "--context", 200, "--budget", "60MB", lines="")
    assert small.exit_code == 3


def test_no_speed_is_told_where_no_time_went_by() -> None:
    assert _speed(10, 4.0) == "2.5 per second"
    assert _speed(0, 4.0) == _speed(10, 0.0) == ""


def test_a_text_does_not_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = "a\x1b[2Jb\n\tc\u202e\u00e9"
    monkeypatch.setattr(sys, "stdout", Terminal())
    shown = shown_safely(text)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    plain = shown_safely(text)
    monkeypatch.undo()
    assert shown == "a\ufffd[2Jb\n\tc\ufffd\u00e9"
    assert plain == text


def test_a_full_context_leaves_the_oldest_turns_out(chatty: Bundle) -> None:
    lines = "".join(f"great film number {n}\n" for n in range(4))
    found = chat(chatty.root, *FEW, "--context", 80, lines=lines)
    assert found.exit_code == 0
    assert "the oldest 2 messages are left out: there is room for 80 tokens" in found.stderr
    assert len(found.stdout.splitlines()) >= 4


def test_a_bundle_without_a_template_continues_texts(tmp_path: Path) -> None:
    bundle = Bundle.open(copied(tmp_path / "bundle", speller))
    found = chat(bundle.root, *FEW, "--system", "x", lines="the film\n great\n")
    assert "no chat template: what you write is continued" in found.stderr
    assert "--system: there is no place" in found.stderr
    first = answer(bundle, "the film")
    assert found.stdout == f"{first}\n{answer(bundle, f'the film{first} great')}\n"
    long = chat(bundle.root, *FEW, "--context", 20, lines="film " * 20 + "\n")
    assert "tokens of the text are left out: there is room for 20" in long.stderr


@pytest.mark.slow
def test_an_adapter_is_compared_with_its_base(invoke: Invoke, tiny: Tiny, tmp_path: Path) -> None:
    """One that chooses label words gets lines in its template; so does the base, to be compared."""
    invoke(*tune_args(tiny, "--steps", 40))
    words = "w90 w91 w70 w80 w85"
    row = json.loads(invoke("eval", tiny.int8, "--adapter", "run", "--data", tiny.data, "--json",
                            ).stdout)  # fmt: skip
    lines = f"{words}\n/adapter off\n/again\n/adapter on\n/again\n"
    found = chat("--adapter", "mine=run", *FEW, "--context", 20, lines=lines)
    assert found.exit_code == 0, found.output
    tuned, base, again = found.stdout.splitlines()
    assert tuned == again
    assert {tuned, base} <= {"w10", "w11"}
    assert row["accuracy"] is not None
    assert "each line is answered alone" in found.stderr
    assert f"bundle of the run: {tiny.int8}" in found.stderr
    missing = chat("--adapter", "nothing", lines="")
    assert missing.exit_code == 1
    rows = [{"a": "w20", "b": "w30", "label": 0}, {"a": "w70", "b": "w80", "label": 1}] * 4
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    invoke(*tune_args(tiny, "--data", data, "--template", "{a} {b} w4", "--label", " w10",
                      "--label", " w11", "--steps", 1, "--valid", "none"),
           "-o", "pairs")  # fmt: skip
    several = chat("--adapter", "pairs", *FEW, "--context", 20, lines="w20\n")
    assert several.exit_code == 2
    assert "rows of several fields (a, b)" in several.stderr


def _until(master: int, text: str, seconds: float = 60.0) -> str:
    """Read a terminal until a text is there."""
    import select

    seen, end = "", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 4096).decode(errors="replace")
    return seen


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_stops_answers_and_ends(chatty: Bundle) -> None:
    import pty

    env: dict[str, Any] = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(
        map(str, [ROOT, ROOT / "export", ROOT / "runtime"]))}  # fmt: skip
    args = [sys.executable, "-m", "edgezo", "chat", str(chatty.root), "--threads", "1",
            "--max-new-tokens", "200"]  # fmt: skip
    pid, master = pty.fork()
    if pid == 0:  # pragma: no cover
        os.execve(args[0], args, env)
    try:
        _until(master, "> ")
        os.write(master, b"/nothing\n")
        assert "no such command" in _until(master, "lists them")  # it goes on
        os.write(master, b"great film\n")
        _until(master, "great film\r\n")
        time.sleep(0.05)
        os.write(master, b"\x03")
        _until(master, "> ")  # an answer that was stopped, or had ended
        end = time.monotonic() + 30
        while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < end
            os.write(master, b"\x04")  # again and again: one that comes between lines is lost
            time.sleep(0.2)
        assert os.waitstatus_to_exitcode(done[1]) == 0
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(master)
