"""Answers while a run goes on: the server of `edgezo serve`, with the adapter as it is."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgezo.cli.serve.settings import KEY_VARIABLE
from edgezo.serve import limits
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo.cli.terminal.progress import Progress
    from edgezo.serve.guard import Guard
    from edgezo.talk.speaker import Speaker
    from edgezo_runtime.app.tuner import Tuner

PATIENCE_S = 10.0
"""Seconds that an answer waits, after the answer before, for a step to begin."""

_BODY_BYTES_PER_TOKEN = 64
"""Bytes of a request for each token of its context; letters may be escaped."""

Beside = Callable[["Tuner", "Progress"], AbstractContextManager[None]]
"""Answers as long as a block of code runs, in which a tuner takes steps; the line of the progress
is ended before the address is told."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where to answer.

    Attributes:
        port: to listen at.
        guard: who may ask; has the host.
        context: most tokens of prompt and answer.
    """

    port: int
    guard: Guard
    context: int

    @classmethod
    def at(cls, address: str, context: int) -> Serving:
        """Check an address; what the server needs is loaded, so that the budget counts it.

        Args:
            address: HOST:PORT.
            context: most tokens of prompt and answer.
        Raises:
            MissingExtraError: the extra `serve` is not installed.
            UsageError: the address is wrong, or other machines could ask without a key.
        """
        from edgezo.serve import server
        from edgezo.serve.guard import Guard, parse_key

        host, port = server.parse_address(address, limits.PORT)
        key = parse_key(os.environ.get(KEY_VARIABLE), KEY_VARIABLE)
        body = min(limits.BODY_BYTES, _BODY_BYTES_PER_TOKEN * context)
        guard = Guard(host, key, body_bytes=body)
        if guard.api_key is None and not guard.is_local:
            raise UsageError(
                f"--serve {address:.80}: other machines could ask without a key; set {KEY_VARIABLE}"
            )
        server.require_extra()
        return cls(port, guard, context)

    @contextlib.contextmanager
    def beside(self, own: socket.socket, tuner: Tuner, progress: Progress) -> Iterator[None]:
        """Answer as long as a block of code runs.

        Args:
            own: socket that listens.
            tuner: takes steps meanwhile.
            progress: its line is ended before the address is told.
        """
        from edgezo.cli.serve.work import log
        from edgezo.cli.terminal.output import note
        from edgezo.serve.answers import Answers, Defaults
        from edgezo.serve.app import make_app
        from edgezo.serve.server import HttpServer
        from edgezo.serve.writing_line import WritingLine

        speaker = speaker_of(tuner, self.context)
        line = WritingLine(limits.WAITING)
        defaults = Defaults(max(1, self.context // 2), limits.TEMPERATURE)
        server = HttpServer(make_app(Answers(speaker, defaults), line, self.guard, log), own)
        progress.end()
        note(f"models: {', '.join(speaker.voices)}; listening at {server.url}/v1")
        server.start()
        try:
            yield
        finally:
            server.stop()
            line.close()
            server.join()


@contextlib.contextmanager
def listening(serving: Serving | None) -> Iterator[Beside]:
    """Listen during a block of code, so that an address that is taken is found before a run begins.

    Args:
        serving: where to answer; None: nowhere.
    Raises:
        EdgezoError: the address is taken.
    """
    if serving is None:
        yield lambda tuner, progress: contextlib.nullcontext()
        return
    from edgezo.serve.server import bind

    with bind(serving.guard.host, serving.port) as own:
        yield functools.partial(serving.beside, own)


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
    waits = Turns(tuner).waiting
    speaker = Speaker(engine, tokenizer, by_name(voices), run_waits=waits)
    speaker.limit(context)
    return speaker


class Turns:
    """Answers and steps in turn: steps wait for an answer, and a step is taken between two answers.

    A step that began after an answer is let finish however long it takes: were it interrupted, it
    would begin anew, and under requests that follow each other none would ever be finished.

    Args:
        tuner: takes the steps.
    """

    def __init__(self, tuner: Tuner) -> None:
        self._tuner = tuner
        self._answered_at = -1

    @contextlib.contextmanager
    def waiting(self, check: Callable[[], None]) -> Iterator[None]:
        """Hold the steps for a block of code; raises what `check` raises."""
        tuner, end = self._tuner, time.monotonic() + PATIENCE_S
        while tuner.step_number == self._answered_at and not tuner.done:
            if not tuner.run.gate.wait_until_idle(0):
                end = time.monotonic() + PATIENCE_S  # a step runs
            elif time.monotonic() > end:
                break  # none comes: the run evaluates, or a governor holds it
            check()
            time.sleep(0.02)
        try:
            with tuner.paused("an answer is written"):
                yield
        finally:  # also where nobody waits for the answer any more
            self._answered_at = tuner.step_number
