"""The linear layers of a model with rounded values, written into a float32 bundle."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_export.quantization.group_codes import group_size_of, round_groups
from edgezo_export.quantization.rotation import rotate_rows
from edgezo_export.sources.architecture import model_class, model_sizes
from edgezo_runtime.bundle.bundle import Bundle, describe_files
from edgezo_runtime.bundle.manifest import MANIFEST_FILE, WEIGHTS_FILE
from edgezo_runtime.bundle.weights import read_header
from tests.benchmarks import models

Q4_0_SIZE = 32

Float32 = npt.NDArray[np.float32]
Change = Callable[[str, Float32], Float32]
"""Takes the name and the (N, K) matrix of a linear layer; returns other values for it."""


def q4_0(weights: Float32) -> Float32:
    """Round as llama.cpp does: d = largest / -8 as float16, q = floor(w / d + 8.5)."""
    groups = weights.reshape(len(weights), -1, Q4_0_SIZE)
    places = np.abs(groups).argmax(axis=2)[..., None]
    steps = (np.take_along_axis(groups, places, 2) / -8).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, steps, out=np.zeros_like(steps), where=steps != 0)
    codes = np.clip(np.floor(groups * inverse + np.float32(8.5)), 0, 15) - 8
    found: Float32 = (codes * steps).reshape(weights.shape).astype(np.float32)
    return found


def rounded(weights: Float32, size: int, *, rotate: bool) -> Float32:
    """Round each weight to the nearest code of its group."""
    own = group_size_of(weights.shape[1], size)
    if own is None:
        return weights
    if not rotate:
        return round_groups(weights, own).values()
    return rotate_rows(round_groups(rotate_rows(weights), own).values())


class Layers:
    """The linear layers of a model that w4 stores in 4 bits, and what rounding makes of them.

    Args:
        model: name of the model.
    """

    def __init__(self, model: str) -> None:
        from edgezo_export.bundle_graphs import build_graphs
        from edgezo_export.schemes.lora import Lora
        from edgezo_export.sources.model_source import open_source
        from edgezo_export.trace.trace import trace_model

        self.source = open_source(model)
        cls, task = model_class(self.source.config, "auto")
        sizes = model_sizes(self.source.config)
        causal = task == "causal-lm"
        trace = trace_model(self.source.config, cls, causal=causal, max_seq=sizes["max_seq"])
        scheme = Lora(targets=models.TARGETS)
        own = build_graphs(trace, scheme, "w4", sizes["hidden_size"], sizes["vocab_size"])
        self._graphs = own.calibration
        self.entries = [entry for entry in own.planned() if entry.kind == "linear_int4"]

    def corrected(self, size: int, *, rotate: bool) -> dict[str, Float32]:
        """Values by name, errors corrected on the rows that `edgezo export` calibrates with."""
        from edgezo_export.calibration.calibrated_codes import CalibratedCodes
        from edgezo_export.export import ExportConfig, rows_to_calibrate_with

        made: dict[str, Float32] = {}
        with tempfile.TemporaryDirectory() as temporary:
            folder, tokenizer = Path(temporary), self.source.tokenizer
            info = self.source.save_tokenizer(folder, tokenizer)
            sizes = model_sizes(self.source.config)
            rows = rows_to_calibrate_with(
                tokenizer, info, ExportConfig().calibration_rows, sizes["max_seq"]
            )
            codes = CalibratedCodes(
                self._graphs,
                self.source,
                rows,
                size,
                lambda done, total: None,
                folder,
                rotated=rotate,
            )
            for entry in self.entries:
                own = group_size_of(2 * entry.shape[1], size)
                if own is None:
                    raise ValueError(f"{entry.name}: no groups of its {2 * entry.shape[1]} inputs")
                for name, found in zip(entry.sources, codes.codes(entry, own), strict=True):
                    values = found.values()
                    made[name] = rotate_rows(values) if rotate else values
        return made

    def change(self, rounding: str, size: int) -> Change:
        """What a way of rounding makes of a layer: q4_0, rounded, rotated, corrected or both."""
        if rounding == "q4_0":
            return lambda name, weights: q4_0(weights)
        if rounding in ("rounded", "rotated"):
            return lambda name, weights: rounded(weights, size, rotate=rounding == "rotated")
        made = self.corrected(size, rotate=rounding == "both")
        return lambda name, weights: made[name]

    def write(self, bundle: Path, change: Change) -> None:
        """Replace the layers of a float32 bundle of the model by what `change` makes of them."""
        self.write_values(bundle / WEIGHTS_FILE, change)
        manifest = Bundle.open(bundle, verify=False).manifest
        files = describe_files(bundle, list(manifest.files))
        changed = dataclasses.replace(manifest, files=files)
        (bundle / MANIFEST_FILE).write_text(changed.to_json(), encoding="utf-8")

    def write_values(self, file: Path, change: Change) -> None:
        """Replace the layers in a file of float32 weights."""
        stored = read_header(file)
        with file.open("r+b") as stream:
            for entry in self.entries:
                matrices = [change(name, self.source.read(name)) for name in entry.sources]
                values = np.ascontiguousarray(np.concatenate(matrices).T, dtype=np.float32)
                place = stored[entry.name]
                if place.shape != values.shape or not entry.transpose:
                    raise ValueError(f"{entry.name}: {place.shape} stored, {values.shape} made")
                stream.seek(place.offset)
                stream.write(values.tobytes())
