"""mlx-lm, as far as it can be tested without it."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.proofs import mlx
from edgezo_runtime.errors import EdgezoError, MissingExtraError
from edgezo_runtime.evaluation.parity import Sample

SAMPLE = Sample((np.array([3, 4], np.int32),), (1, 2), "all")


def test_a_package_that_is_not_installed(monkeypatch):
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(mlx, "import_module", absent)
    with pytest.raises(MissingExtraError, match="pip install mlx-lm"):
        mlx.require_mlx()


@pytest.mark.parametrize(
    ("config", "message"),
    [('{"model_file": "x.py"}', "names code"), ("[]", "cannot be read"), (None, "cannot be read")],
)
def test_configs_are_checked_before_a_model_is_loaded(tmp_path, monkeypatch, config, message):
    monkeypatch.setattr(mlx, "require_mlx", lambda: (None, None))
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(EdgezoError, match=message):
        mlx.mlx_scores(tmp_path, tmp_path / "adapter", SAMPLE)


def test_errors_of_a_model_name_the_adapter(tmp_path, monkeypatch):
    class Utils:
        @staticmethod
        def load_model(folder):
            raise ValueError("no such layer")

    monkeypatch.setattr(mlx, "require_mlx", lambda: (Utils, None))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EdgezoError, match=r"adapter: mlx-lm does not run it: .*no such layer"):
        mlx.mlx_scores(tmp_path, tmp_path / "adapter", SAMPLE)
