"""`edgezo generate`: text that a bundle generates, with or without an adapter."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from edgezo.cli.generate.settings import GenerationSettings
from edgezo.cli.settings.config_file import config_option
from edgezo.cli.settings.device import DeviceSettings
from edgezo.cli.settings.grouped_command import GroupedCommand, OptionGroups
from edgezo.cli.settings.options import (
    build,
    flat_fields,
    given_options,
    options_of,
    setting,
)
from edgezo.cli.settings.process import budget_setting, threads_setting, verify_setting
from edgezo.cli.terminal.code_page import reading_stdin
from edgezo.cli.terminal.output import json_option, note, print_result, warn
from edgezo.cli.terminal.quiet import quiet_option
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo.wording import rate, significant
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo.cli.terminal.progress import Progress
    from edgezo_runtime.data.tokenizer import TextTokenizer
    from edgezo_runtime.generation.generator import Generator
    from edgezo_runtime.generation.text_reader import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSettings(DeviceSettings):
    """Settings of `edgezo generate` besides those of the generated texts."""

    prompt: tuple[str, ...] = setting(
        (),
        "text to continue; '-' reads it from stdin, without the last line end; may be given "
        "several times",
        metavar="TEXT",
    )
    row: tuple[str, ...] = setting(
        (),
        "row to make a prompt of, in JSON: an object, whose fields fill the template, or an array "
        "of messages; may be given several times",
        metavar="JSON",
    )
    template: str | None = setting(
        None,
        "prompt of a row, with fields of the row in braces; if not given, that of the adapter",
        metavar="TEXT",
    )
    chat: bool = setting(False, "format the prompts as messages of a user, by the chat template")
    system: str | None = setting(None, "system message, with `chat`", metavar="TEXT")
    adapter: str | None = setting(None, "run folder or adapter file", metavar="PATH")
    budget: str = budget_setting("auto")
    threads: int = threads_setting()
    verify: bool = verify_setting()

    def check(self) -> None:
        """Refuse values that are out of range or need another one.

        Raises:
            UsageError: naming the flag.
        """
        if not self.prompt and not self.row:
            raise UsageError("nothing to continue; give --prompt TEXT or --row JSON")
        if self.threads < 0:
            raise UsageError(f"--threads {self.threads}: must be 0 or more")
        if self.system is not None and not self.chat:
            raise UsageError("--system: a system message belongs to a chat; give --chat as well")


_GROUPS: OptionGroups = {
    "Prompts": ("prompt", "row", "template", "chat", "system"),
    "Model": ("adapter", "verify"),
    "Budget": ("budget", "device", "device_budget", "threads"),
    "Generated texts": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop"),
}


@click.command(
    name="generate",
    cls=GroupedCommand,
    groups=_GROUPS,
    short_help="Generate text with a bundle, with or without an adapter.",
)
@click.argument("bundle", required=False)
@config_option(GenerateSettings, GenerationSettings)
@options_of(GenerateSettings, GenerationSettings)
@quiet_option
@json_option
def command(bundle: str | None, as_json: bool, **values: Any) -> None:
    """Generate text with BUNDLE from prompts. The text of a single prompt is shown as it grows.

    BUNDLE is by default that of the adapter's run; without an adapter it is SmolLM2-135M-Instruct.

    Keys and values of all tokens are cached, so that the prompt is read once and each new token
    costs the work of one token. The cache counts against the budget.
    """
    settings = build(GenerateSettings, values)
    generation = build(GenerationSettings, values)
    settings.check()
    with StopSignals() as signals:
        result = _generate(bundle, settings, generation, signals, as_json)
    if as_json:
        print_result(result, [], as_json)
    else:
        note(f"{result['new_tokens']} tokens, {rate(result['tokens_per_s'])} per second")


def _generate(
    given: str | None,
    settings: GenerateSettings,
    generation: GenerationSettings,
    signals: StopSignals,
    as_json: bool,
) -> dict[str, Any]:
    from edgezo.cli.generate.loaded_generator import load_generator
    from edgezo.cli.generate.row_prompts import RowPrompts
    from edgezo.cli.settings.budget import resolve_budget
    from edgezo.cli.settings.known_bundle import known_bundle
    from edgezo.cli.terminal.progress import Progress
    from edgezo_runtime.budget.generation_plan import plan_generation
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.system.memory import peak_rss_bytes

    budget, warning = resolve_budget(settings.budget)
    path = known_bundle(given, settings.adapter)
    bundle = Bundle.open(path, verify=None if settings.verify else False)
    opened = load_generator(
        bundle, settings.adapter, signals,
        budget=budget, threads=settings.threads, verified=settings.verify,
        placement=settings.place(bundle.manifest),
    )  # fmt: skip
    tuned, generator = opened.tuned, opened.generator
    names = given_options(field.name for field in flat_fields(GenerationSettings))
    generated = generation.settled(names, tuned.answers)
    config = generated.settings.config()
    rows = RowPrompts.of(opened, settings.template, config.max_new_tokens)
    doubts = rows.warnings(settings.prompt if not settings.chat else (), generated.differences)
    warnings = [*doubts, *([warning] if warning else [])]
    for text in warnings:
        warn(text)
    prompts = [_prompt(text, settings, opened.tokenizer) for text in settings.prompt]
    prompts += rows.tokens(settings.row)
    sizes = [len(prompt) for prompt in prompts]
    with Progress() as progress:
        measured = progress.count("measuring passes for the memory plan")
        plan = plan_generation(generator, sizes, tuned.params, config, budget, measured)
    plan.apply(generator)
    started = time.monotonic()
    texts: dict[int, Text] = {}
    with Progress() as progress, generator.engine.interruptible(signals.check):
        show = _Shown(len(prompts), config.max_new_tokens, progress, printed=not as_json)
        try:
            for delta in generator.stream(prompts, tuned.params, config):
                texts[delta.text.number] = delta.text
                show.take(delta.text, delta.shown)
        finally:
            show.end()
    seconds = time.monotonic() - started
    return {
        "bundle": str(path),
        "adapter": settings.adapter,
        **({"template": rows.settled.reading.template} if settings.row else {}),
        "scope": tuned.scope,
        "generation": generated.as_json(),
        "texts": [_entry(texts[number]) for number in range(len(prompts))],
        **_counts(generator, seconds),
        "peak_bytes": peak_rss_bytes(),
        "budget_bytes": budget,
        "warnings": warnings,
    }


class _Shown:
    """Prints texts: a single one as it grows, several ones each when it is finished.

    What is not seen to grow has a bar, of all tokens that may come.

    Args:
        count: number of texts.
        longest: most new tokens of each.
        progress: shows the bar.
        printed: print the texts.
    """

    def __init__(self, count: int, longest: int, progress: Progress, *, printed: bool) -> None:
        self._longest = longest
        self._total = count * longest
        self._progress = progress
        self._printed = printed
        self._grows = printed and count == 1
        self._tokens: dict[int, int] = {}
        self._done: dict[int, str] = {}
        self._next = 0
        self._open = False
        self._tell()

    def take(self, text: Text, shown: str) -> None:
        """Take what was added to a text."""
        if self._grows:
            sys.stdout.write(shown + ("\n" if text.finish else ""))
            sys.stdout.flush()
            self._open = (self._open or bool(shown)) and not text.finish
            return
        self._tokens[text.number] = self._longest if text.finish else len(text.tokens)
        if self._printed and text.finish is not None:
            self._done[text.number] = text.stream.text
            self._print_next()
        self._tell()

    def end(self) -> None:
        """End the line of an unfinished text, so that the next message has its own."""
        if self._open:
            click.echo()

    def _print_next(self) -> None:
        """Print the finished texts whose turn it is, in place of the bar."""
        if self._next in self._done:
            self._progress.end()
        while self._next in self._done:
            click.echo(self._done.pop(self._next))
            self._next += 1

    def _tell(self) -> None:
        if not self._grows:
            done = sum(self._tokens.values())
            self._progress.part("generating tokens", done, self._total)


def _prompt(text: str, settings: GenerateSettings, tokenizer: TextTokenizer) -> list[int]:
    from edgezo_runtime.data.template import check_text

    if text == "-":
        with reading_stdin():
            text = sys.stdin.read()
        text = text[:-1] if text.endswith("\n") else text
    check_text(text, "the text", "--prompt")
    if not settings.chat:
        if tokenizer.writes_bos(text):
            first = tokenizer.token_text(tokenizer.bos_id)
            warn(f"--prompt begins with {first!r}, which comes before every text; it gets one")
        return tokenizer.encode(text, add_special=True)
    from edgezo_runtime.data.chat.chat_template import ChatTemplate

    system = [] if settings.system is None else [{"role": "system", "content": settings.system}]
    messages = [*system, {"role": "user", "content": text}]
    whole = ChatTemplate(tokenizer).render(messages, "--prompt", generation_prompt=True)
    return tokenizer.encode(whole, add_special=False)


def _entry(text: Text) -> dict[str, Any]:
    return {
        "text": text.stream.text,
        "tokens": text.tokens,
        "prompt_tokens": len(text.prompt),
        "finish": text.finish,
    }


def _counts(generator: Generator, seconds: float) -> dict[str, Any]:
    return {
        "prompt_tokens": generator.prompt_tokens,
        "new_tokens": generator.new_tokens,
        "seconds": round(seconds, 3),
        "tokens_per_s": significant(generator.new_tokens / seconds, 4) if seconds > 0 else None,
    }
