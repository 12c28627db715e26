"""Generated tokens per second: with cached keys and values, without, and by transformers in torch.

    python -m tests.benchmarks.generation [--prompt-tokens 128] [--new-tokens 64] [--texts 1]

All sides generate the same number of tokens after the same random prompts, greedily, never ending
early. int8 against float32 is part of the comparison, as it is for users. "recomputing" reads the
whole text again for every token. Each side is a process of its own; its time is that of the second
run, its memory the peak of the process.

Targets: at least 5 times the tokens of recomputing, and as many as transformers.
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

MIN_OVER_RECOMPUTING, MIN_OVER_TORCH = 5.0, 1.0


def prompts_of(count: int, tokens: int, vocab_size: int) -> list[list[int]]:
    """The same random prompts for all sides."""
    found = np.random.default_rng(0).integers(5, vocab_size, (count, tokens))
    return [[int(token) for token in row] for row in found]


def keeping(bundle: str, texts: int, prompt: int, new: int) -> dict[str, Any]:
    """Seconds of the generator."""
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.data.tokenizer import TextTokenizer
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.generation.generator import GenerationConfig, Generator

    opened = Bundle.open(bundle)
    generator = Generator(
        Engine(opened), TextTokenizer.open(opened.root, opened.manifest.tokenizer)
    )
    generator.ends = frozenset()
    prompts = prompts_of(texts, prompt, opened.manifest.model.vocab_size)
    params = opened.trainables()

    def write() -> None:
        generator.generate(prompts, params, GenerationConfig(new))

    return {"seconds": second_go(write)}


def recomputing(bundle: str, texts: int, prompt: int, new: int) -> dict[str, Any]:
    """Seconds if every token begins with an empty past."""
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.data.tokenizer import TextTokenizer
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.generation.generator import GenerationConfig, Generator

    opened = Bundle.open(bundle)
    generator = Generator(
        Engine(opened), TextTokenizer.open(opened.root, opened.manifest.tokenizer)
    )
    generator.ends = frozenset()
    params = opened.trainables()
    prompts = prompts_of(texts, prompt, opened.manifest.model.vocab_size)

    def write() -> None:
        rows = [list(row) for row in prompts]
        for _ in range(new):
            for row, text in zip(
                rows, generator.generate(rows, params, GenerationConfig(1)), strict=True
            ):
                row.append(text.tokens[0])

    return {"seconds": second_go(write)}


def transforming(weights: str, texts: int, prompt: int, new: int) -> dict[str, Any]:
    """Seconds of transformers' generate with its own cache, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    ids = torch.tensor(prompts_of(texts, prompt, model.config.vocab_size))

    def write() -> None:
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=new,
                max_new_tokens=new,
            )

    return {"seconds": second_go(write)}


def second_go(work: Any) -> float:
    """Seconds of a second run: the first reads weights from the disk."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def report(children: dict[str, Child], tokens: int) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    rates = {name: tokens / child.result["seconds"] for name, child in children.items()}
    rows: list[list[object]] = [
        [name, rates[name], 1000 / rates[name], child.peak_mb] for name, child in children.items()
    ]
    print_table(["", "tokens/s", "ms per token", "peak MB"], rows)
    own = rates["edgezo"]
    return [
        Target("tokens/s over recomputing", own / rates["recomputing"], MIN_OVER_RECOMPUTING, True),
        Target("tokens/s over transformers", own / rates["transformers"], MIN_OVER_TORCH, True),
    ]


def main() -> int:
    """Prepare, measure, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--prompt-tokens", type=int, default=128)
    arguments.add_argument("--new-tokens", type=int, default=64)
    arguments.add_argument("--texts", type=int, default=1)
    options: argparse.Namespace = arguments.parse_args()
    sizes = {"texts": options.texts, "prompt": options.prompt_tokens, "new": options.new_tokens}
    with models.prepared(options, "int8", "torch") as made:
        children = {
            "edgezo": call(keeping, bundle=str(made.int8), **sizes),
            "recomputing": call(recomputing, bundle=str(made.int8), **sizes),
            "transformers": call(transforming, weights=str(made.torch), **sizes),
        }
    return print_targets(report(children, options.texts * options.new_tokens))


if __name__ == "__main__":
    sys.exit(main())
