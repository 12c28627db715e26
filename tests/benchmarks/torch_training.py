"""Training in torch on rows of a task, with evaluations: the common part of both loops.

Rows become tokens by the bundle's tokenizer, exactly as edgezo's do. Scores are the logits of the
label words at the end of each prompt and nothing else: no other logits are computed, which is less
work than the reference implementations do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import Batch, Batches, SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from tests.benchmarks.curves import Point
from tests.benchmarks.tasks import TaskRows

EVAL_ROWS = 32
MAX_SEQ = 512


@dataclass(frozen=True, slots=True)
class Limits:
    """Length of training, and interval of evaluations.

    Attributes:
        max_s: seconds of training; evaluations are not counted.
        eval_every_s: seconds of training between evaluations.
        batch_size: rows per step.
        max_steps: a second end, for tests; 0 for none.
    """

    max_s: float
    eval_every_s: float = 60.0
    batch_size: int = 16
    max_steps: int = 0


def load_model(folder: str, threads: int) -> Any:
    """A causal language model in float32, in eval mode."""
    import transformers

    torch.set_num_threads(threads)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def load_rows(bundle: str, rows: TaskRows) -> tuple[ExampleSet, ExampleSet]:
    """Training and validation rows of a task.

    Args:
        bundle: has the tokenizer.
        rows: the task.
    """
    manifest = Bundle.open(Path(bundle)).manifest
    tokenizer = TextTokenizer.open(Path(bundle), manifest.tokenizer, task=manifest.model.task)
    train, valid = (
        load_examples(
            file,
            tokenizer,
            template=rows.task.template,
            labels=rows.task.labels,
            max_seq=min(MAX_SEQ, manifest.model.max_seq),
        )
        for file in (rows.train, rows.valid)
    )
    if train.kind != "labels":
        raise ValueError(f"{rows.train}: a label word is more than one token of this tokenizer")
    return train, valid


def label_scores(model: Any, batch: Batch) -> Tensor:
    """Logits of the label words at the end of each prompt, (B, C).

    Args:
        model: a causal language model of transformers; adapters may be in it.
        batch: filled up on the right, where causal attention does not look.
    """
    hidden: Tensor = model.base_model(torch.from_numpy(batch.input_ids), use_cache=False)[0]
    ends = torch.from_numpy(batch.positions)
    head = model.get_output_embeddings()
    assert head.bias is None
    assert batch.label_ids is not None
    return nn.functional.linear(
        hidden[ends[:, 0], ends[:, 1]], head.weight[torch.from_numpy(batch.label_ids)]
    )


def label_word_loss(model: Any, batch: Batch) -> Tensor:
    """Cross entropy over the label words."""
    return nn.functional.cross_entropy(label_scores(model, batch), torch.from_numpy(batch.labels))


def accuracy(model: Any, examples: ExampleSet) -> float:
    """Share of right classes."""
    right = 0
    with torch.inference_mode():
        for batch in SequentialBatches(examples, EVAL_ROWS):
            chosen = label_scores(model, batch).argmax(1)
            right += int((chosen == torch.from_numpy(batch.labels)).sum())
    return right / len(examples)


def train(
    step: Callable[[int, Batch], None],
    model: Any,
    examples: tuple[ExampleSet, ExampleSet],
    seed: int,
    limits: Limits,
    *,
    forwards: int,
    tell: Callable[[Point], None] | None = None,
) -> dict[str, Any]:
    """Train until the time is over.

    Args:
        step: does one step, given its number and batch.
        model: what it trains.
        examples: to train and to validate on.
        seed: of the order of the rows.
        limits: length and evaluations.
        forwards: passes of the batch per step; a backward pass counts as two.
        tell: called with every evaluation.
    Returns:
        "points", the evaluations, and "steps", "seconds".
    """
    training, valid = examples
    batches = Batches(training, limits.batch_size, seed)
    points: list[Point] = []
    seconds, number, due = 0.0, 0, 0.0
    while True:
        over = seconds >= limits.max_s or (limits.max_steps and number >= limits.max_steps)
        if over or seconds >= due:
            found = accuracy(model, valid)
            points.append(Point(seconds, number * batches.batch_size * forwards, found))
            if tell is not None:
                tell(points[-1])
            due = limits.eval_every_s * (seconds // limits.eval_every_s + 1)
        if over:
            rows = [list(asdict(point).values()) for point in points]
            return {"points": rows, "steps": number, "seconds": seconds}
        started = time.perf_counter()
        step(number, batches.batch(number))
        number += 1
        seconds += time.perf_counter() - started
