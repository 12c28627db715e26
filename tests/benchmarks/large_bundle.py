"""A bundle of 7B shape with random weights, for effects that no small model shows.

    python -m tests.benchmarks.large_bundle -o BUNDLE [--blocks 32] [--hidden 4096] [--mlp 11008]
                                            [--heads 32] [--kv_heads 0] [--vocab 32000]
                                            [--seed 0] [--quant int8]

A Llama in every respect but its weights: it goes through the same export as `edgezo export`, with
the default adapters. Its tensors are made from the seed when the export reads them, so no
checkpoint of 13 GB lies on the disk: only the bundle's 6.7 GB are written. The same seed gives the
same bytes. 4-bit weights (`--quant w4`) are rounded, not calibrated. Prints time, peak memory of
the process and the digest of the weights. About two and a half minutes. The shape of Llama 3 8B is
`--mlp 14336 --kv_heads 8 --vocab 128256`.

Target: a peak of at most 2.5 GB.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from edgezo_export.operators.layers import Quant
from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Manifest
from edgezo_runtime.system.memory import peak_rss_bytes
from tests.benchmarks import export_memory
from tests.benchmarks.targets import Target, parser, print_targets

MAX_PEAK_MB = 2500.0

STD = 0.02
"""Of every matrix. In 4,096 channels the residual stream grows with the root of the depth, to about
10 after 32 blocks."""

STRIPE_ROWS = 16
"""Rows made by one generator: few enough that a piece which cuts them wastes little."""

Float32 = npt.NDArray[np.float32]


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
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.blocks,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads or self.heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "dtype": "float32",
            "bos_token_id": 1,
            "eos_token_id": 2,
        }


class RandomCheckpoint:
    """Tensors that are made when read, with the methods of a `SafetensorsFolder`.

    Matrices are normal with standard deviation `STD`, vectors (the norms) ones.

    Args:
        shapes: of every tensor, by name.
        seed: 0 or more.
    Memory:
        The requested tensor, and one stripe.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
        self._shapes = dict(shapes)
        self._seed = seed

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._shapes[name]

    def read(self, name: str) -> Float32:
        """A whole tensor."""
        return self.read_rows(name, 0, self._shapes[name][0])

    def read_rows(self, name: str, start: int, stop: int) -> Float32:
        """Rows start..stop, independent of how a tensor is divided."""
        rows = np.ones((stop - start, *self._shapes[name][1:]), np.float32)
        if rows.ndim == 1:
            return rows
        for first in range(start - start % STRIPE_ROWS, stop, STRIPE_ROWS):
            low, high = max(start, first), min(stop, first + STRIPE_ROWS)
            stripe = self._stripe(name, first // STRIPE_ROWS)
            np.multiply(
                stripe[low - first : high - first],
                np.float32(STD),
                out=rows[low - start : high - start],
            )
        return rows

    def _stripe(self, name: str, number: int) -> Float32:
        key = [self._seed, zlib.crc32(name.encode()), number]
        generator = np.random.Generator(np.random.SFC64(key))
        return generator.standard_normal((STRIPE_ROWS, self._shapes[name][1]), np.float32)


def build(
    output: Path, shape: Shape | None = None, seed: int = 0, quant: Quant = "int8"
) -> Manifest:
    """Export a random model.

    Args:
        output: folder to make.
        shape: sizes; those of 7B by default.
        seed: of the weights.
        quant: their form.
    Returns:
        The manifest of the new bundle.
    Raises:
        UsageError: `output` exists.
    """
    from transformers import LlamaConfig

    from edgezo_export.export import ExportConfig, export_bundle
    from edgezo_export.sources.model_source import Source
    from edgezo_export.sources.parameter_names import NameResolver

    content = (shape or Shape()).config()
    config = LlamaConfig(**content)
    checkpoint = RandomCheckpoint(dict(export_memory.shapes(content)), seed)
    names = NameResolver(config, frozenset(checkpoint.names()))
    model_id = f"random-llama-seed-{seed}"
    with tempfile.TemporaryDirectory(prefix="edgezo-benchmark-") as temporary:
        folder = Path(temporary)
        (folder / "config.json").write_text(json.dumps(content))
        write_tokenizer(folder, content["vocab_size"])
        source = Source(model_id, config, content, checkpoint, names, folder, None)
        settings = ExportConfig(quant=quant)
        if quant == "w4":  # random weights gain nothing by calibration
            settings = replace(settings, calibration_rows=0)
        return export_bundle(source, output, settings)


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A tokenizer of `vocab_size` words with spaces between them: w3, w4, ..."""
    import tokenizers
    import transformers

    words = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(3, vocab_size))]
    vocabulary = {word: number for number, word in enumerate(words)}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="<unk>")
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)


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
