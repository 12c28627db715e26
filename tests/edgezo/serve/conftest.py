from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from edgezo.serve.answers import Answers, Defaults
from edgezo.serve.app import make_app
from edgezo.serve.guard import Guard
from edgezo.serve.server import HttpServer, bind
from edgezo.serve.writing_line import WritingLine
from edgezo.talk.speaker import Speaker
from edgezo.talk.voice import Voice, by_name, fixed
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.engine.engine import Engine
from tests.runtime.chat_bundle import chat_bundle

KEY = "key-of-the-tests"


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that spells, with a chat template."""
    return chat_bundle(tmp_path_factory.mktemp("chatty") / "bundle")


def make_speaker(bundle: Bundle) -> Speaker:
    """The bundle and an adapter of it that says something else."""
    generator = np.random.default_rng(4)
    moved = {
        name: (value + generator.normal(0, 0.5, value.shape)).astype(np.float32)
        for name, value in bundle.trainables().items()
    }
    voices = [Voice("plain", fixed(bundle.trainables()), created_s=7), Voice("tuned", fixed(moved))]
    return Speaker(Engine(bundle, threads=1), open_tokenizer(bundle), by_name(voices))


@dataclass(slots=True)
class Served:
    """A server that runs.

    Attributes:
        url: where it listens.
        speaker: answers.
        line: where requests wait.
        server: of HTTP.
        logged: lines of its log.
    """

    url: str
    speaker: Speaker
    line: WritingLine
    server: HttpServer
    logged: list[str] = field(default_factory=list)

    def client(self, key: str = KEY) -> OpenAI:
        """The official client."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)


@contextmanager
def serving(
    speaker: Speaker, *, waiting: int = 8, new_tokens: int = 64, **guard: Any
) -> Iterator[Served]:
    """Serve in a thread, at a free port."""
    logged: list[str] = []
    line = WritingLine(waiting)
    own = bind("127.0.0.1", 0)
    settings = {"host": "127.0.0.1", "api_key": KEY, "body_bytes": 20_000, **guard}
    answers = Answers(speaker, Defaults(new_tokens, 0.0))
    server = HttpServer(make_app(answers, line, Guard(**settings), logged.append), own)
    server.start()
    try:
        yield Served(server.url, speaker, line, server, logged)
    finally:
        server.stop()
        line.close()
        server.join()
        own.close()


@pytest.fixture(scope="module")
def served(chatty: Bundle) -> Iterator[Served]:
    """One server for the tests of a module."""
    with serving(make_speaker(chatty)) as found:
        yield found


@pytest.fixture
def held(served: Served, monkeypatch: pytest.MonkeyPatch) -> Callable[[], threading.Event]:
    """Make the texts that follow wait, each before its third token, for an event."""

    def hold() -> threading.Event:
        go = threading.Event()
        write = served.speaker.write

        def slow(name: str, prompt: Any, config: Any, check: Any = None, look: Any = None) -> Any:
            for number, delta in enumerate(write(name, prompt, config, check, look)):
                while number >= 2 and not go.is_set():
                    check()
                    time.sleep(0.005)
                yield delta

        monkeypatch.setattr(served.speaker, "write", slow)
        return go

    return hold


def wait_until(done: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)
