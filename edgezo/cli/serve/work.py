"""Runs `edgezo serve`: opens the models, listens, answers until it is stopped."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from edgezo.cli.serve.settings import KEY_VARIABLE
from edgezo.cli.talk.opened_speaker import SpeakerSettings, open_speaker
from edgezo.cli.terminal.output import harmless, note, warn
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.serve.answers import Answers, Defaults
from edgezo.serve.guard import Guard, parse_key
from edgezo.serve.server import HttpServer, bind, require_extra
from edgezo.serve.writing_line import WritingLine
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo.cli.serve.settings import ServeSettings
    from edgezo.talk.speaker import Speaker


def serve(bundle: str | None, settings: ServeSettings) -> None:
    """Serve until the first signal.

    Args:
        bundle: its path; None for that of the first adapter's run, else the default one.
        settings: of the server.
    Raises:
        EdgezoError: it cannot begin.
    """
    guard = guard_of(settings)
    require_extra()
    own = bind(settings.host, settings.port)  # before the model is loaded, which takes longer
    wanted = SpeakerSettings(
        bundle=bundle,
        adapters=settings.adapter,
        base=settings.name,
        budget=settings.budget,
        context=settings.context,
        threads=settings.threads,
        verify=settings.verify,
        device=settings,
        requests_bytes=(settings.queue + 1) * guard.body_bytes,
    )
    with own, StopSignals() as signals:
        speaker = open_speaker(wanted, signals)
        _tell_of(speaker)
        defaults = Defaults(settings.max_new_tokens, settings.temperature, settings.stop)
        line = WritingLine(settings.queue)
        try:
            from edgezo.serve.app import make_app

            app = make_app(Answers(speaker, defaults), line, guard, log)
            server = HttpServer(app, own)
            note(f"listening at {server.url}/v1; Ctrl-C ends it")
            signals.on_request(server.stop)
            server.run()
        finally:
            line.close()
    note("stopped")


def guard_of(settings: ServeSettings) -> Guard:
    """Who may ask.

    Raises:
        UsageError: a setting is wrong, or other machines could ask without a key.
    """
    key = parse_key(settings.api_key, "--api-key")
    if key is None:
        key = parse_key(os.environ.get(KEY_VARIABLE), KEY_VARIABLE)
    guard = Guard(
        host=settings.host,
        api_key=key,
        hosts=settings.allow_host,
        origins=settings.allow_origin,
        body_bytes=settings.body_bytes,
    )
    if key is None and not guard.is_local:
        raise UsageError(
            f"--host {settings.host}: other machines could ask without a key; set {KEY_VARIABLE}, "
            f"or --api-key"
        )
    if settings.allow_host and not guard.is_local:
        warn(f"--allow-host: not used, since any name of the host is taken at {settings.host}")
    return guard


def log(text: str) -> None:
    """A line of the log, on stderr."""
    note(f"{time.strftime('%H:%M:%S')} {harmless(text)}")


def _tell_of(speaker: Speaker) -> None:
    """Name the models, and what they are for."""
    note(f"models: {', '.join(speaker.voices)}; up to {speaker.context} tokens")
    if not speaker.chats:
        warn("the bundle has no chat template: only /v1/completions is answered")
    for voice in speaker.voices.values():
        if voice.template is not None:
            warn(
                f"{voice.name} was tuned on prompts of the template {voice.template!r:.100}; give "
                f"such prompts to /v1/completions"
            )
