"""Seconds until the answers of a conversation begin, with the turns before kept and without.

    python -m tests.benchmarks.turns [--turns 6] [--turn-tokens 100] [--new-tokens 20]

Both sides have the same conversation: a turn is the text so far and some random tokens more. One
keeps keys and values of the text before, as `edgezo chat` and `edgezo serve` do; the other reads
the whole prompt of every turn. They take turns, so other work meets both.

Target: the last turn begins at least twice as soon.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

from tests.benchmarks import models
from tests.benchmarks.children import Child, call
from tests.benchmarks.targets import Target, parser, print_table, print_targets

MIN_RATIO = 2.0


def talking(bundle: str, turns: int, more: int, new: int) -> dict[str, Any]:
    """Of every turn: tokens of its prompt, and those read and seconds on both sides."""
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.data.tokenizer import TextTokenizer
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.generation.generator import GenerationConfig, Generator
    from edgezo_runtime.generation.kept_text import KeptText

    opened = Bundle.open(bundle)
    tokenizer = TextTokenizer.open(opened.root, opened.manifest.tokenizer)
    generator, kept = Generator(Engine(opened), tokenizer), KeptText()
    generator.ends = frozenset()
    params, draws = opened.trainables(), np.random.default_rng(0)

    def begin(prompt: list[int], memory: KeptText | None) -> tuple[float, int, list[int]]:
        read, started = generator.prompt_tokens, time.perf_counter()
        stream = generator.stream([prompt], params, GenerationConfig(new), kept=memory)
        last = next(stream)
        seconds, count = time.perf_counter() - started, generator.prompt_tokens - read
        last = [last, *stream][-1]
        return seconds, count, last.text.tokens

    found: list[dict[str, Any]] = []
    text: list[int] = []
    begin([5, 6, 7], None)  # reads weights from the disk
    for _ in range(turns):
        text += draws.integers(5, opened.manifest.model.vocab_size, more).tolist()
        whole_s, whole, _ = begin(text, None)
        kept_s, some, answer = begin(text, kept)
        found.append({"prompt": whole, "read": some, "whole_s": whole_s, "kept_s": kept_s})
        text += answer
    return {"turns": found}


def report(child: Child) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    turns = child.result["turns"]
    rows: list[list[object]] = [
        [number, own["prompt"], own["whole_s"], own["read"], own["kept_s"],
         own["whole_s"] / own["kept_s"]]
        for number, own in enumerate(turns, 1)
    ]  # fmt: skip
    print_table(["turn", "tokens", "seconds", "tokens, kept", "seconds, kept", "ratio"], rows)
    last = turns[-1]
    return [Target("ratio of the last turn", last["whole_s"] / last["kept_s"], MIN_RATIO, True)]


def main() -> int:
    """Prepare, measure, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--turns", type=int, default=6)
    arguments.add_argument("--turn-tokens", type=int, default=100)
    arguments.add_argument("--new-tokens", type=int, default=20)
    options: argparse.Namespace = arguments.parse_args()
    sizes = {"turns": options.turns, "more": options.turn_tokens, "new": options.new_tokens}
    with models.prepared(options, "int8") as made:
        child = call(talking, bundle=str(made.int8), **sizes)
    return print_targets(report(child))


if __name__ == "__main__":
    sys.exit(main())
