"""What the tests of generation share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.data.example_set import Example, ExampleSet, LoadReport, TruncationReport
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.generation.generator import GenerationConfig, Generator
from edgezo_runtime.generation.text_reader import Text

SIZES = (5, 1, 13, 21, 2, 21, 8)
NEW = 24
"""Behind the longest prompt that is more than a sliding window of the tiny models."""


def prompts_of(sizes: tuple[int, ...] = SIZES) -> list[list[int]]:
    """Prompts of random tokens."""
    generator = np.random.default_rng(3)
    return [generator.integers(4, 97, size).tolist() for size in sizes]


def moved(bundle: Bundle, size: float = 0.1) -> dict[str, np.ndarray]:
    """Trainables that do something."""
    generator = np.random.default_rng(1)
    return {
        name: (value + generator.normal(0, size, value.shape)).astype(np.float32)
        for name, value in bundle.trainables().items()
    }


def writer(bundle: Bundle, engine: Engine | None = None, **options: Any) -> Generator:
    """A generator of a bundle."""
    manifest = bundle.manifest
    tokenizer = TextTokenizer.open(bundle.root, manifest.tokenizer)
    return Generator(engine or Engine(bundle), tokenizer, **options)


def log_probs(
    engine: Engine,
    params: dict[str, np.ndarray],
    prompts: list[list[int]],
    texts: list[Text],
    scope: Scope = "all",
) -> list[np.ndarray]:
    """Log-probabilities of the tokens written, by passes over whole rows."""
    examples = []
    for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        tokens = np.array([*prompt, *text.tokens], np.int32)
        places = np.arange(len(prompt), tokens.size, dtype=np.int32)
        examples.append(Example(number, number + 1, tokens, places))
    report = LoadReport(len(prompts), 0, 0, TruncationReport())
    rows = ExampleSet("completion", tuple(examples), Path("rows"), "", 64, 0, report)
    batch = make_batch(rows, range(len(rows)))
    scores = engine.score(batch, SharedParams(params), scope=scope)[0]
    return [scores[batch.positions[:, 0] == row] for row in range(len(prompts))]


def check_logits(bundle: Bundle, scope: Scope = "all", tolerance: float = 2e-4) -> list[Text]:
    """Every logit on the way is that of a pass over the whole row."""
    engine, params, prompts = Engine(bundle), moved(bundle), prompts_of()
    seen: dict[tuple[int, int], np.ndarray] = {}

    def look(number: int, place: int, token: int, logits: np.ndarray) -> None:
        shifted = logits - logits.max()
        seen[number, place] = shifted - np.log(np.exp(shifted).sum())

    texts = writer(bundle, engine, scope=scope).generate(
        prompts, params, GenerationConfig(NEW), look=look
    )
    whole = log_probs(engine, params, prompts, texts, scope)
    for text in texts:
        for place, token in enumerate(text.tokens):
            own = seen[text.number, place][token]
            assert own == pytest.approx(whole[text.number][place], abs=tolerance)
    return texts
