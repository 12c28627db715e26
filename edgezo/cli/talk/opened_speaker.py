"""Opens a bundle with its adapters as a `Speaker`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgezo.cli.files.verify import verify
from edgezo.cli.generate.loaded_generator import Tuned
from edgezo.cli.settings.budget import resolve_budget
from edgezo.cli.settings.device import DeviceSettings
from edgezo.cli.settings.known_bundle import known_bundle
from edgezo.cli.terminal.output import warn
from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.talk.speaker import Speaker
from edgezo.talk.voice import BASE, Voice, by_name, fixed, parse_named
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.bundle.bundle import MANIFEST_FILE, Bundle
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.errors import DoesNotFitError, UsageError
from edgezo_runtime.generation.generator import why_no_text
from edgezo_runtime.journal.run_folder import find_adapter
from edgezo_runtime.system.sizes import format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeakerSettings:
    """What has to be opened.

    Attributes:
        bundle: its path; None for that of the first adapter's run, else the default model.
        adapters: each [NAME=]PATH.
        base: name of the bundle without adapters; None for its own.
        budget: as on the command line.
        context: most tokens of prompt and answer; 0 takes as many as fit.
        threads: compute threads; 0 takes one per core.
        verify: check the digests of the bundle's files first.
        device: what computes.
        requests_bytes: what the budget has to leave for requests.
    """

    bundle: str | None
    adapters: tuple[str, ...]
    base: str | None
    budget: str
    context: int
    threads: int
    verify: bool
    device: DeviceSettings
    requests_bytes: int = 0


def open_speaker(settings: SpeakerSettings, signals: StopSignals) -> Speaker:
    """Open the bundle and its adapters, and plan the memory, with progress; warnings are printed.

    Args:
        settings: what has to be opened.
        signals: can interrupt it.
    Raises:
        EdgezoError: a file is missing or damaged, memory is short, or the bundle cannot generate.
    """
    named = [parse_named(text) for text in settings.adapters]
    root = known_bundle(settings.bundle, *(path for _, path in named))
    budget, less = resolve_budget(settings.budget)
    bundle = Bundle.open(root, verify=None if settings.verify else False)
    if (reason := why_no_text(bundle.manifest)) is not None:
        raise UsageError(f"bundle {bundle.root} cannot generate: {reason}")
    with refusing_to_begin():
        if settings.verify:
            verify(bundle, signals)
        voices = [_base(bundle, settings.base)]
        for name, path in named:
            tuned = Tuned.open(bundle, path)
            made = int(find_adapter(Path(path)).stat().st_mtime)
            reading = tuned.reading
            voices.append(
                Voice(name, fixed(tuned.params), tuned.scope, reading, created_s=made)
            )  # fmt: skip
            for text in tuned.differences:
                warn(f"{name}: {text}")
        if less is not None:
            warn(less)
        placement = settings.device.place(bundle.manifest)
        engine = limited_engine(bundle, budget, settings.threads or None, placement)
        speaker = Speaker(engine, open_tokenizer(bundle), by_name(voices))
    signals.check()
    with Progress() as progress, engine.interruptible(signals.check):
        _plan(speaker, budget, settings, progress.count("measuring passes for the memory plan"))
    return speaker


def _plan(
    speaker: Speaker, budget: int, settings: SpeakerSettings, tell: Callable[[int, int], None]
) -> None:
    """Plan the memory for texts, beside what requests take."""
    try:
        speaker.plan(budget - settings.requests_bytes, settings.context, tell)
    except DoesNotFitError as error:
        if not settings.requests_bytes:
            raise
        more = format_size(settings.requests_bytes, up=True)
        raise DoesNotFitError(f"{error}; and {more} more for requests that wait") from error


def base_name(bundle: Bundle) -> str:
    """A short name of a bundle's model."""
    last = bundle.manifest.model.id.rstrip("/").rpartition("/")[2]
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in last)
    return plain or BASE


def _base(bundle: Bundle, name: str | None) -> Voice:
    made = int((bundle.root / MANIFEST_FILE).stat().st_mtime) or int(time.time())
    shown = base_name(bundle) if name is None else parse_named(f"{name}=x")[0]
    return Voice(shown, fixed(bundle.trainables()), created_s=made)
