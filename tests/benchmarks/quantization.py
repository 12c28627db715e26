"""Cost of int8 for the untuned model: perplexity, and margins of a zero-shot classifier.

    python -m tests.benchmarks.quantization [--model MODEL] [--int8 BUNDLE] [--fp32 BUNDLE]
                                            [--data FOLDER] [--limit N]

Both bundles score tinyshakespeare/test.jsonl token by token, and 500 validation rows of SST-2 with
the template "{sentence} It was" and the label words " terrible" and " great"; the margin is the
difference of the two logits. About three minutes on two cores.

Targets: perplexity at most 2 % above that of float32, margins .30 apart in root mean square (their
own spread is 1.1).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.batches import SequentialBatches
from edgezo_runtime.data.example_set import ExampleSet
from edgezo_runtime.data.sources import load_examples
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.engine.engine import Engine, SharedParams
from tests.benchmarks import models
from tests.benchmarks.targets import (
    DATA,
    Target,
    missing_data,
    parser,
    print_table,
    print_targets,
)
from tests.benchmarks.tasks import TASKS

SST2_ROWS = 500
MAX_PERPLEXITY_RATIO, MAX_MARGIN_RMS = 1.02, 0.30


@dataclass(frozen=True, slots=True)
class Quality:
    """Scores of a bundle.

    Attributes:
        perplexity: exp of the mean negative log-probability of a token.
        margins: (N,) logit of the second label word minus that of the first.
        accuracy: share of rows whose margin has the right sign.
    """

    perplexity: float
    margins: npt.NDArray[np.float64]
    accuracy: float


def measure(
    bundle: Path,
    text: Path,
    rows: Path,
    limit: int | None = None,
    labelled_rows: int | None = None,
) -> Quality:
    """Score a bundle.

    Args:
        bundle: its folder.
        text: .jsonl file with the field text.
        rows: .jsonl file with the fields sentence and label.
        limit: rows of either, None for all of the text and `SST2_ROWS`.
        labelled_rows: of `rows`, where that is another number.
    """
    opened = Bundle.open(bundle)
    manifest = opened.manifest
    engine = Engine(opened)
    params = SharedParams(opened.trainables())
    tokenizer = TextTokenizer.open(opened.root, manifest.tokenizer, task=manifest.model.task)
    max_seq = manifest.model.max_seq
    texts = load_examples(text, tokenizer, max_seq=max_seq, limit=limit)
    labelled = load_examples(
        rows,
        tokenizer,
        template=TASKS["sst2"].template,
        labels=TASKS["sst2"].labels,
        max_seq=max_seq,
        limit=labelled_rows or limit or SST2_ROWS,
    )
    margins = label_margins(engine, params, labelled)
    classes = np.array([example.label for example in labelled])
    return Quality(
        perplexity(engine, params, texts), margins, float(((margins > 0) == classes).mean())
    )


def perplexity(engine: Engine, params: SharedParams, texts: ExampleSet) -> float:
    """exp of the mean over all scored tokens of the set."""
    total, count = 0.0, 0
    for batch in SequentialBatches(texts, 8):
        scores = engine.score(batch, params)  # (1, T) log-probabilities
        total -= float(scores.sum(dtype=np.float64))
        count += scores.size
    return math.exp(total / count)


def label_margins(
    engine: Engine, params: SharedParams, rows: ExampleSet
) -> npt.NDArray[np.float64]:
    """Difference of the label words' logits, in the order of the file."""
    margins = np.empty(len(rows), np.float64)
    for batch in SequentialBatches(rows, 32):
        scores = engine.score(batch, params)[0].astype(np.float64)  # (B, 2)
        margins[batch.ids] = scores[:, 1] - scores[:, 0]
    return margins


def report(fp32: Quality, int8: Quality) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    apart = float(np.sqrt(np.mean(np.square(int8.margins - fp32.margins))))
    ratio = int8.perplexity / fp32.perplexity
    spreads = [float(quality.margins.std()) for quality in (fp32, int8)]
    print_table(
        ["", "perplexity", "ratio", "margins apart", "margins' spread", "accuracy"],
        [
            ["fp32", fp32.perplexity, "1.0000", 0.0, spreads[0], fp32.accuracy],
            [
                "int8",
                int8.perplexity,
                f"{ratio:.4f}",
                apart,
                float(int8.margins.std()),
                int8.accuracy,
            ],
        ],
    )
    return [
        Target("perplexity over that of float32", ratio, MAX_PERPLEXITY_RATIO),
        Target("root mean square of the margins' difference", apart, MAX_MARGIN_RMS),
    ]


def main() -> int:
    """Prepare, measure, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    arguments.add_argument(
        "--limit", type=int, help="use only the first rows of either file, for a trial"
    )
    options = arguments.parse_args()
    text = options.data / "tinyshakespeare" / "test.jsonl"
    rows = options.data / "sst2" / "validation.jsonl"
    if missing_data([text, rows]):
        return 0
    with models.prepared(options, "int8", "fp32") as made:
        print(models.describe(made.int8))
        fp32, int8 = (measure(p, text, rows, options.limit) for p in (made.fp32, made.int8))
    return print_targets(report(fp32, int8))


if __name__ == "__main__":
    sys.exit(main())
