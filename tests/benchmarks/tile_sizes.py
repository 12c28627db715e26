"""Products of a w4 layer in tiles of several sizes: seconds of a core, coded and in float32.

    python -m tests.benchmarks.tile_sizes [--width 4096] [--outputs 14336] [--tokens 64,256]
                                          [--numbers 524288,2097152,8388608] [--rounds 3]

The layer has random codes. The coded product is that of a forward pass, the float32 one that of the
way back. One thread; medians of alternating rounds.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import onnx_ir as ir
import onnxruntime

from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators import tiles
from edgezo_export.operators.linear import LinearLowering, LinearSpec
from tests.benchmarks.targets import parser, print_table

_DTYPES = {"uint8": np.uint8, "int8": np.int8, "float32": np.float32}


def graph(width: int, outputs: int, numbers: int, *, floats: bool) -> GraphBuilder:
    """The product of a w4 layer in tiles of so many numbers."""
    tiles.NUMBERS = numbers
    draft = GraphBuilder("layer", "m.")
    x = draft.input("x", ir.DataType.FLOAT, ("rows", "tokens", width))
    linears = LinearLowering(draft, "w4", dequantize=floats)
    linears.declare_code()
    spec = LinearSpec(("m.q",), (outputs,), width, False, ())
    y = linears.emit(spec, x, draft.op("Shape", x, start=0, end=2))
    draft.output(y, "y", ir.DataType.FLOAT, ("rows", "tokens", outputs))
    return draft


class Product:
    """A session and what it takes."""

    def __init__(self, draft: GraphBuilder, width: int, tokens: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
        options.add_session_config_entry("session.disable_prepacking", "1")
        self._session = onnxruntime.InferenceSession(
            draft.serialize(), options, providers=["CPUExecutionProvider"]
        )
        random = np.random.default_rng(0)
        one = np.ones((1, 1), np.float32)
        rows = random.standard_normal((1, tokens, width), np.float32)
        feed = {"x": rows, "code": one, "decode": one}
        for info in draft.info("").inputs:
            if info.name not in feed:
                shape = [int(dim) for dim in info.shape]
                feed[info.name] = random.integers(0, 100, shape).astype(_DTYPES[info.dtype])
        taken = {item.name for item in self._session.get_inputs()}
        self._feed = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value)
            for name, value in feed.items()
            if name in taken
        }

    def seconds(self) -> float:
        """Seconds of this thread for one product."""
        busy = time.thread_time()
        self._session.run_with_ort_values(["y"], self._feed)
        return time.thread_time() - busy


def main() -> int:
    """Measure and report."""
    arguments = parser(__doc__)
    arguments.add_argument("--width", type=int, default=4096)
    arguments.add_argument("--outputs", type=int, default=14336)
    arguments.add_argument("--tokens", default="64,256")
    arguments.add_argument("--numbers", default=f"{1 << 19},{tiles.NUMBERS},{8 << 20}")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    sizes = [int(part) for part in options.numbers.split(",")]
    table: list[list[object]] = []
    for tokens in (int(part) for part in options.tokens.split(",")):
        for floats in (False, True):
            drafts = [graph(options.width, options.outputs, n, floats=floats) for n in sizes]
            products = [Product(draft, options.width, tokens) for draft in drafts]
            found: list[list[float]] = [[] for _ in products]
            for number in range(options.rounds + 1):
                for own, product in zip(found, products, strict=True):
                    seconds = product.seconds()
                    own += [seconds] if number else []
            kind = "float32" if floats else "coded"
            medians = [f"{1e3 * statistics.median(own):.0f}" for own in found]
            table.append([f"{kind}, {tokens} tokens", *medians])
    print_table(["ms of a core", *(f"tiles of {size}" for size in sizes)], table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
