"""A bundle of 7B shape with random weights, for effects that no small model shows.

    python -m tests.benchmarks.large_bundle -o BUNDLE [--blocks 32] [--hidden 4096] [--mlp 11008]
                                            [--heads 32] [--kv_heads 0] [--vocab 32000]
                                            [--seed 0] [--quant int8]

A Llama in every respect but its weights: it goes through the same export as `edgezo export`, with
the default adapters. Its tensors are made from the seed when the export reads them, so no
checkpoint of 13 GB lies on the disk: only the bundle's 6.7 GB are written. The same seed gives the
same bytes. 4-bit weights (`--quant w4`) are rounded, not calibrated. Prints time, peak memory of
the process and the digest of the weights. About two and a half minutes. `eight_billion` makes that
of Llama 3 8B, and others.

Target: a peak of at most 2.5 GB.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from edgezo_export.operators.layers import Quant
from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Manifest
from edgezo_runtime.system.memory import peak_rss_bytes
from tests.benchmarks import random_models
from tests.benchmarks.targets import Target, parser, print_targets

MAX_PEAK_MB = 2500.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama; without `kv_heads` every head has keys and values of its own."""

    blocks: int = 32
    hidden: int = 4096
    mlp: int = 11008
    heads: int = 32
    kv_heads: int = 0
    vocab: int = 32000

    def config(self) -> dict[str, Any]:
        """Content of config.json."""
        own = self.blocks, self.hidden, self.mlp, self.heads
        return random_models.llama(*own, self.kv_heads or self.heads, self.vocab)


def build(
    output: Path, shape: Shape | None = None, seed: int = 0, quant: Quant = "int8"
) -> Manifest:
    """Export a random model, as `random_models.build` does; of 7B by default."""
    return random_models.build(output, (shape or Shape()).config(), seed, quant)


def main() -> int:
    """Build and report."""
    arguments = parser(__doc__)
    arguments.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    for name, default in asdict(Shape()).items():
        arguments.add_argument(f"--{name}", type=int, default=default)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--quant", choices=get_args(Quant), default="int8")
    options = arguments.parse_args()
    shape = Shape(**{name: getattr(options, name) for name in asdict(Shape())})
    started = time.perf_counter()
    manifest = build(options.output, shape, options.seed, options.quant)
    seconds = time.perf_counter() - started
    size = sum(info.bytes for info in manifest.files.values())
    print(f"{options.output}: {size / 1e9:.2f} GB in {seconds:.0f} s")
    print(f"sha256 of {WEIGHTS_FILE}: {manifest.files[WEIGHTS_FILE].sha256}")
    return print_targets([Target("peak in MB", peak_rss_bytes() / 1e6, MAX_PEAK_MB)])


if __name__ == "__main__":
    sys.exit(main())
