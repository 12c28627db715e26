"""Why a loss is not a finite number: the adapter, the model or the rows."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from edgezo_runtime.bundle.bundle import WEIGHTS_FILE, Bundle
from edgezo_runtime.bundle.weights import read_header
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.engine import Engine
from edgezo_runtime.engine.params import SharedParams
from edgezo_runtime.evaluation import not_finite
from edgezo_runtime.evaluation.not_finite import why_not_finite
from tests.runtime.tiny_sets import random_set


def test_finite_numbers_leave_the_rows(bundle):
    assert "overflow on these rows" in why_not_finite(bundle, bundle.trainables())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_adapter(bundle, bad):
    params = bundle.trainables()
    name = list(params)[-1]
    params[name].flat[:2] = bad
    text = why_not_finite(bundle, params)
    assert f"2 of {params[name].size} numbers of the adapter's tensor {name!r}" in text


def test_the_model(bundle, tmp_path, monkeypatch):
    """A bundle with such weights gives such losses; newer exports make none."""
    monkeypatch.setattr(not_finite, "_CHUNK", 7)
    root = shutil.copytree(bundle.root, tmp_path / "copy")
    stored = read_header(root / WEIGHTS_FILE)["model.norm.weight"]
    with (root / WEIGHTS_FILE).open("r+b") as file:
        file.seek(stored.offset + 12)
        file.write(np.full(3, np.nan, np.float32).tobytes())
    copy = Bundle.open(root, verify=False)
    batch = make_batch(random_set("labels", (4,), 0), range(1))
    params = copy.trainables()
    assert np.isnan(Engine(copy).score(batch, SharedParams(params))).all()
    text = why_not_finite(copy, params)
    assert f"3 of {stored.shape[0]} numbers of the model's tensor 'model.norm.weight'" in text
