"""Exact gradients with all blocks resident and with all of them streamed: time and weights read.

    python -m tests.benchmarks.streamed_steps [--rounds 3] [--steps 1] [--rows 16] [--tokens 512]
                                              [--wave 48MB,2GB] [--data FOLDER] [--model MODEL]
                                              [--int8 BUNDLE]

SmolLM2-135M int8, gradients of all adapters on rows of Dolly (`dolly_hhrlhf/train.jsonl`) of up to
512 tokens, 16 per step, two workers. Every run is a process of its own, with one step before those
that are timed; resident blocks and waves of every size take turns. The weights read are the pages
of the file that are in the process when a block is dropped: what streaming has to map again, and
what the disk has to read where the system does not cache the file. Linux only.

Targets: streamed blocks at most 1.1 times the time of resident ones; weights read at most twice
per wave.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgezo_runtime.system.sizes import parse_size
from tests.benchmarks import models
from tests.benchmarks.children import Child, call
from tests.benchmarks.edgezo_loop import timed
from tests.benchmarks.step import median_s
from tests.benchmarks.targets import DATA, Target, missing_data, parser, print_table, print_targets

ROWS, TOKENS = 16, 512
WARM_UP = 1
MAX_RATIO = 1.1
RESIDENT = "resident"

_PRESENT = np.uint64(1 << 63)
"""The bit of an entry in /proc/self/pagemap that says that the page is in the process."""


def gradient_steps(
    bundle: str, data: str, steps: int, rows: int, tokens: int, threads: int, wave: int
) -> dict[str, Any]:
    """Take exact gradients of batches.

    Args:
        bundle: its folder.
        data: file of rows.
        steps: gradients that are timed.
        rows: examples of a batch.
        tokens: of the longest row.
        threads: workers.
        wave: bytes of the states of chunks that go through streamed blocks together; 0 streams no
            block.
    """
    from dataclasses import replace

    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.bundle.weights import WeightsFile
    from edgezo_runtime.data.batches import Batches
    from edgezo_runtime.data.sources import load_examples, open_tokenizer
    from edgezo_runtime.engine.engine import Engine
    from edgezo_runtime.engine.first_order import FirstOrderGradient

    opened = Bundle.open(bundle, verify=False)
    examples = load_examples(data, open_tokenizer(opened), max_seq=tokens)
    batches = Batches(examples, batch_size=rows, seed=0)
    engine = Engine(opened, threads=threads)
    if wave:
        engine.limits = replace(engine.limits, wave_bytes=wave)
        engine.streamed = frozenset(range(engine.num_blocks))
    pages = engine.model.weights
    blocks = [span for graph in engine.model.blocks for span in graph.held.pages.spans]
    dropped, drop = 0, WeightsFile.drop

    def counted(weights: WeightsFile, start: int, end: int) -> None:
        nonlocal dropped
        if (start, end) in blocks:
            dropped += present_bytes(weights, start, end)
        drop(weights, start, end)

    WeightsFile.drop = counted  # type: ignore[method-assign]
    gradient = FirstOrderGradient(engine, 0)
    theta = opened.trainables()
    seconds, cpu, read = [], [], []
    for number in range(WARM_UP + steps):
        before, started = dropped, time.process_time()
        batch = batches.batch(number % batches.steps_per_epoch)
        seconds.append(timed(lambda batch=batch: gradient.gradient(batch, theta)))
        cpu.append(time.process_time() - started)
        read.append(dropped - before)
    return {
        "seconds": seconds[WARM_UP:],
        "cpu": cpu[WARM_UP:],
        "read": read[WARM_UP:],
        "blocks": sum(end - start for start, end in blocks),
        "file": pages.path.stat().st_size,
    }


def present_bytes(weights: Any, start: int, end: int) -> int:
    """Bytes of the weights' file, of those from `start` to `end`, that this process has mapped."""
    first = weights._bytes.ctypes.data + start
    low, high = first // mmap.PAGESIZE, -(-(first + end - start) // mmap.PAGESIZE)
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        entries = np.frombuffer(os.pread(file.fileno(), 8 * (high - low), 8 * low), np.uint64)
    return mmap.PAGESIZE * int(np.count_nonzero(entries & _PRESENT))


def run(
    bundle: Path, data: Path, waves: list[str], rounds: int, steps: int, rows: int, tokens: int
) -> dict[str, list[Child]]:
    """Let resident blocks, and streamed ones with waves of each size, take turns.

    Returns:
        The children of each, one per round.
    """
    found: dict[str, list[Child]] = {name: [] for name in (RESIDENT, *waves)}
    for _ in range(rounds):
        for name, children in found.items():
            wave = 0 if name == RESIDENT else parse_size(name)
            common = {"bundle": str(bundle), "data": str(data), "steps": steps, "threads": 2}
            children.append(call(gradient_steps, **common, rows=rows, tokens=tokens, wave=wave))
    return found


def report(found: dict[str, list[Child]]) -> list[Target]:
    """Print the table.

    Returns:
        The targets of the product.
    """
    usual = median_s(found[RESIDENT])
    rows, targets = [], []
    for name, children in found.items():
        read = float(np.median([size for child in children for size in child.result["read"]]))
        cpu = float(np.median([own for child in children for own in child.result["cpu"]]))
        seconds, blocks = median_s(children), children[0].result["blocks"]
        peak = max(child.peak_mb for child in children)
        rows.append([name, seconds, seconds / usual, cpu, read / 1e6, read / blocks, peak])
        if name != RESIDENT:
            targets.append(Target(f"step time with waves of {name}", seconds / usual, MAX_RATIO))
    head = [
        "blocks",
        "s per step",
        "ratio",
        "s of cores",
        "MB of blocks read",
        "times all",
        "peak MB",
    ]
    print_table(head, rows)
    return targets


def main() -> int:
    """Prepare, run, report."""
    arguments = parser(__doc__)
    models.add_options(arguments)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=1, help="timed steps of a run")
    arguments.add_argument("--rows", type=int, default=ROWS)
    arguments.add_argument("--tokens", type=int, default=TOKENS, help="of the longest row")
    arguments.add_argument("--wave", default="48MB,2GB", metavar="SIZES", help="sizes of waves")
    arguments.add_argument("--data", type=Path, default=DATA, metavar="FOLDER")
    options = arguments.parse_args()
    data = options.data / "dolly_hhrlhf" / "train.jsonl"
    if missing_data([data]):
        return 0
    with models.prepared(options, "int8", train="ab") as prepared:
        print(models.describe(prepared.int8))
        batch = (options.rounds, options.steps, options.rows, options.tokens)
        found = run(prepared.int8, data, options.wave.split(","), *batch)
    return print_targets(report(found))


if __name__ == "__main__":
    sys.exit(main())
