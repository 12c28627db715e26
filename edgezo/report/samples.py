"""Texts that a run's adapters write, before and after tuning."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgezo.report.row_texts import RunTexts, Sample, open_bundle, row_text
from edgezo.runs.run_record import RunRecord
from edgezo_runtime.adapters.adapter import load_adapter
from edgezo_runtime.budget.generation_plan import plan_generation
from edgezo_runtime.budget.memory_limits import limited_engine, refusing_to_begin
from edgezo_runtime.data.sources import open_tokenizer
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.generation.sampling import Sampling

if TYPE_CHECKING:
    from edgezo.runs.evaluated_rows import KeptRow

NEW_TOKENS = 48
"""Tokens of each text."""

_PROMPT = 600
"""Characters of a prompt that are shown."""


def sample_rows(run: RunRecord, count: int) -> list[KeptRow]:
    """Rows whose prompts can be continued: whole ones without classes."""
    own = run.rows.sets.get("valid", {})
    found = own.get("before") or own.get("after")
    rows = [] if found is None else [row for row in found.samples if row.answer and not row.cut]
    return rows[:count]


def with_samples(
    texts: RunTexts,
    run: RunRecord,
    *,
    bundle: Path | None,
    budget: int,
    count: int,
    check: Callable[[], None],
    tell: Callable[[int, int], None] = lambda done, most: None,
) -> RunTexts:
    """Add what the initial and the tuned adapter write after some prompts of the run.

    Texts are those of the largest probability at each token (temperature 0).

    Args:
        texts: of the run.
        run: the run.
        bundle: its bundle; None takes the place that the run knows.
        budget: bytes that the process may take.
        count: most texts.
        check: raises to interrupt.
        tell: given how many tokens have been generated, and how many there are at most.
    Raises:
        EdgezoError: memory is short, or the bundle or an adapter is damaged.
    """
    rows = sample_rows(run, count)
    if not rows or not run.folder.adapter.is_file():
        return texts
    opened = open_bundle(run, bundle)
    tokenizer = open_tokenizer(opened)
    prompts = [list(row.tokens[: row.answer]) for row in rows]
    config = GenerationConfig(NEW_TOKENS, Sampling(temperature=0.0))
    written: list[list[str]] = []
    with refusing_to_begin():
        engine = limited_engine(opened, budget, None)
        tuned = load_adapter(run.folder.adapter)
        start = run.folder.start
        initial = load_adapter(start).params(opened) if start.is_file() else opened.trainables()
        generator = Generator(engine, tokenizer, scope=tuned.info.scope)
    tokens, most = itertools.count(1), 2 * len(prompts) * NEW_TOKENS
    tell(0, most)
    try:
        for params in (initial, tuned.params(opened)):
            plan = plan_generation(generator, list(map(len, prompts)), params, config, budget)
            plan.apply(generator)
            with engine.interruptible(check):
                found = generator.generate(
                    prompts, params, config, look=lambda *_: tell(next(tokens), most)
                )
            written.append([text.stream.text for text in found])
    finally:
        engine.close()
    named = [row_text(row, tokenizer, ()) for row in rows]
    samples = [
        Sample(_end(own.prompt), own.answer.strip(), before.strip(), after.strip())
        for own, before, after in zip(named, *written, strict=True)
    ]
    return replace(texts, samples=samples)


def _end(prompt: str) -> str:
    return prompt if len(prompt) <= _PROMPT else "... " + prompt[-_PROMPT:]
