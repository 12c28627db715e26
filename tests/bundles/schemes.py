"""Bundles of tiny models with other trainables than LoRA."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from tests.bundles.cache import cached
from tests.bundles.tiny import tiny_model
from tests.bundles.traces import use_cached_traces


def scheme_bundle(name: str, kind: str, quant: str, options: Mapping[str, object]) -> Path:
    """A bundle of a model of `TINY`.

    Args:
        name: in `TINY`.
        kind: in `SCHEMES`.
        quant: its quantization.
        options: of the scheme.
    """

    def make(folder: Path) -> None:
        from edgezo_export.export import ExportConfig, export_bundle
        from edgezo_export.schemes import make_scheme

        config = ExportConfig(quant=quant, scheme=make_scheme(kind, options))
        use_cached_traces()
        export_bundle(str(tiny_model(name)), folder, config)

    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]
    return cached(f"{name}/{kind}-{quant}-{digest}", make)
