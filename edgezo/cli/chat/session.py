"""A session of `edgezo chat`: reads lines, answers them, follows commands."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from edgezo.cli.chat.commands import Commands
from edgezo.cli.chat.lines import Lines, shown_safely
from edgezo.cli.settings.flags import with_flags
from edgezo.cli.talk.opened_speaker import SpeakerSettings, open_speaker
from edgezo.cli.terminal.output import harmless, note, warn
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.talk.conversation import Conversation
from edgezo.talk.voice import parse_named
from edgezo.wording import rate
from edgezo_runtime.errors import BundleError, DataError, EdgezoError, InterruptedRunError

if TYPE_CHECKING:
    from edgezo.cli.chat.settings import ChatSettings
    from edgezo_runtime.generation.generator import GenerationConfig

_KINDS = {
    "turns": "",
    "rows": "it was tuned on rows of a template: each line is answered alone, in the template",
    "text": "the bundle has no chat template: what you write is continued; /reset begins anew",
}
"""What has to be said of a kind of conversation."""


def chat(bundle: str | None, settings: ChatSettings, config: GenerationConfig) -> None:
    """Talk until the lines end.

    Args:
        bundle: its path; None for that of the adapter's run, else the default one.
        settings: of the conversation.
        config: of the answers.
    Raises:
        EdgezoError: it cannot begin; or, on a pipe, a line cannot be answered.
    """
    wanted = SpeakerSettings(
        bundle=bundle,
        adapters=settings.adapter,
        base=None,
        budget=settings.budget,
        context=settings.context,
        threads=settings.threads,
        verify=settings.verify,
        device=settings,
    )
    with StopSignals() as signals:
        speaker = open_speaker(wanted, signals)
    names = list(speaker.voices)
    voice = parse_named(settings.adapter[0])[0] if settings.adapter else names[0]
    conversation = Conversation(speaker, voice, settings.system)
    note(f"{voice} answers; up to {speaker.context} tokens; /help lists the commands")
    most = speaker.context // 2
    if config.max_new_tokens > most:
        note(f"answers are limited to {most} tokens, half of what there is room for")
        config = dataclasses.replace(config, max_new_tokens=most)
    if _KINDS[conversation.kind]:
        note(f"{voice}: {_KINDS[conversation.kind]}")
    if settings.system is not None and conversation.kind != "turns":
        warn("`system`: there is no place for a system message here; it is not used")
    ChatSession(conversation, config, Lines()).run()


class ChatSession:
    """Reads lines and answers them.

    Args:
        conversation: what was said.
        config: of the answers.
        lines: of the user.
    """

    def __init__(self, conversation: Conversation, config: GenerationConfig, lines: Lines) -> None:
        self._conversation = conversation
        self._lines = lines
        self._commands = Commands(conversation, config, self._answer)

    def run(self) -> None:
        """Answer until the lines end, or /quit.

        Raises:
            EdgezoError: on a pipe, a line cannot be answered.
        """
        while not self._commands.ended and (line := self._lines.read()) is not None:
            if line.strip():
                self._forgiving(lambda line=line: self._follow(line))  # type: ignore[misc]

    def _follow(self, line: str) -> None:
        if line.startswith("/"):
            self._commands.follow(line)
        else:
            self._answer(line.removeprefix("\\") if line.startswith("\\/") else line)

    def _forgiving(self, act: Callable[[], None]) -> None:
        """On a terminal, an error ends the answer, not the conversation."""
        try:
            act()
        except (InterruptedRunError, BundleError):
            raise
        except (EdgezoError, MemoryError) as error:
            if not self._lines.terminal and not isinstance(error, DataError):
                raise
            note(f"error: {harmless(with_flags(str(error)))}")

    def _answer(self, line: str) -> None:
        """Answer a line, and note both."""
        conversation, config = self._conversation, self._commands.config
        speaker = conversation.speaker
        if conversation.chooses:
            self._choose(line)
            return
        prompt = conversation.prompt(line, config.max_new_tokens)
        if prompt.left_out:
            note(
                f"the oldest {prompt.left_out} messages are left out: there is room for "
                f"{speaker.context} tokens"
            )
        if prompt.cut:
            note(
                f"the first {prompt.cut} tokens of the text are left out: there is room for "
                f"{speaker.context}"
            )
        text, finish, stopped = "", None, False
        with StopSignals() as signals:
            began, first = time.monotonic(), None
            try:
                for delta in speaker.write(
                    conversation.voice, prompt.tokens, config, signals.check
                ):
                    if first is None:
                        first = time.monotonic()
                    text += delta.shown
                    finish = delta.text.finish
                    sys.stdout.write(shown_safely(delta.shown))
                    sys.stdout.flush()
            except InterruptedRunError:
                stopped = True
            finally:
                sys.stdout.write("\n")
                sys.stdout.flush()
        if stopped and not self._lines.terminal:
            raise InterruptedRunError("interrupted")
        conversation.note(line, text, prompt.left_out)
        counts, now = speaker.counts, time.monotonic()
        first = now if first is None else first
        speed = _speed(counts.new - 1, now - first)
        known = counts.prompt - counts.read
        parts = [
            f"{counts.new} tokens" + (f", {speed}" if speed else ""),
            f"{counts.read} read in {first - began:.1f} s" + (f", {known} known" if known else ""),
            *(["stopped"] if stopped else []),
            *(["longest answer reached"] if finish == "length" else []),
        ]
        note(f"({'; '.join(parts)})")

    def _choose(self, line: str) -> None:
        """Answer a line by a label word."""
        (word, share), *others = self._conversation.choose(line)
        click.echo(shown_safely(word.strip()))
        self._conversation.note(line, word)
        shown = [f"{share:.0%}", *(f"{own.strip()} {part:.0%}" for own, part in others[:2])]
        note(f"({'; '.join(shown)})")


def _speed(tokens: int, seconds: float) -> str:
    """How fast the tokens behind the first came; nothing where there is nothing to measure."""
    return f"{rate(tokens / seconds)} per second" if tokens > 0 and seconds > 0 else ""
