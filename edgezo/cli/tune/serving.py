"""Answers while a run goes on: the server of `edgezo serve`, with the adapter as it is."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgezo.cli.serve.settings import KEY_VARIABLE
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo.cli.terminal.progress import Progress
    from edgezo.serve.guard import Guard
    from edgezo.talk.speaker import Speaker
    from edgezo_runtime.app.tuner import Tuner

LONGEST_STEP_S = 10.0
"""Seconds that an answer waits for a step after the answer before; evaluations last longer."""

WAITING = 8
"""Requests that wait while one is answered."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that is ready to begin.

    Attributes:
        own: its socket.
        guard: who may ask.
        context: most tokens of prompt and answer.
    """

    own: socket.socket
    guard: Guard
    context: int

    @classmethod
    def at(cls, address: str, context: int) -> Serving:
        """Listen at an address; what the server needs is loaded, so that the budget counts it.

        Args:
            address: HOST:PORT.
            context: most tokens of prompt and answer.
        Raises:
            MissingExtraError: the extra `serve` is not installed.
            UsageError: the address is wrong, or other machines could ask without a key.
            EdgezoError: the address is taken.
        """
        from edgezo.serve import server
        from edgezo.serve.guard import Guard

        host, port = server.parse_address(address, 8000)
        guard = Guard(host, os.environ.get(KEY_VARIABLE) or None)
        if guard.api_key is None and not guard.is_local:
            raise UsageError(
                f"--serve {address:.80}: other machines could ask without a key; set {KEY_VARIABLE}"
            )
        server.require_extra()
        return cls(server.bind(host, port), guard, context)

    @contextlib.contextmanager
    def beside(self, tuner: Tuner, progress: Progress) -> Iterator[None]:
        """Answer as long as a block of code runs.

        Args:
            tuner: takes steps meanwhile.
            progress: is interrupted by lines of the log.
        """
        from edgezo.cli.serve.work import log
        from edgezo.cli.terminal.output import note
        from edgezo.serve.answers import Answers, Defaults
        from edgezo.serve.app import make_app
        from edgezo.serve.server import HttpServer
        from edgezo.serve.writing_line import WritingLine

        speaker = speaker_of(tuner, self.context)
        line = WritingLine(WAITING)
        most = max(1, self.context // 2)
        app = make_app(Answers(speaker, Defaults(most, 1.0)), line, self.guard, log)
        server = HttpServer(app, self.own)
        progress.end()
        note(f"models: {', '.join(speaker.voices)}; listening at {server.url}/v1")
        server.start()
        try:
            yield
        finally:
            server.stop()
            line.close()
            server.join()
            self.own.close()


def speaker_of(tuner: Tuner, context: int) -> Speaker:
    """A speaker with the adapter of a run, as it is at the time, and without it.

    Args:
        tuner: the run.
        context: most tokens of prompt and answer.
    """
    from edgezo.cli.talk.opened_speaker import base_name
    from edgezo.talk.speaker import Speaker
    from edgezo.talk.voice import Voice, by_name, fixed
    from edgezo_runtime.data.reading import Reading
    from edgezo_runtime.data.sources import open_tokenizer

    run, engine = tuner.run, tuner.run.engine
    reader = tuner.reader
    tokenizer = open_tokenizer(engine.bundle) if reader is None else reader.tokenizer
    name, base = run.folder.path.resolve().name, base_name(engine.bundle)
    voices = [
        Voice(
            name,
            tuner.adapter,
            run.scope,
            None if reader is None else Reading.of(reader),
            keeps=False,
        ),
        Voice(base if base != name else f"{base}-base", fixed(engine.bundle.trainables())),
    ]
    waits = _Turns(tuner).waiting
    speaker = Speaker(engine, tokenizer, by_name(voices), run_waits=waits)
    speaker.limit(context)
    return speaker


class _Turns:
    """Answers and steps in turn: steps wait for an answer, and a step is taken between two answers.

    Args:
        tuner: takes the steps.
    """

    def __init__(self, tuner: Tuner) -> None:
        self._tuner = tuner
        self._answered_at = -1

    @contextlib.contextmanager
    def waiting(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold the steps for a block of code; raises what `check` raises."""
        tuner, end = self._tuner, time.monotonic() + LONGEST_STEP_S
        while tuner.step_number == self._answered_at and not tuner.done:
            if time.monotonic() > end:
                break
            check()
            time.sleep(0.02)
        try:
            with tuner.paused("an answer is written"):
                yield
        finally:  # also where nobody waits for the answer any more
            self._answered_at = tuner.step_number
