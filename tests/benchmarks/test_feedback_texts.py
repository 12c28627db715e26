"""Feedback on texts in the benchmark: its lines, and cosines that are one in the last block."""

from __future__ import annotations

import argparse
import re

import numpy as np
import pytest

from tests.benchmarks.feedback_texts import cosine, cosines, learn, settings
from tests.runtime.tiny_sets import random_set


def texts(bundle, count: int):
    return random_set("completion", [9] * count, bundle.manifest.tokenizer.pad_id, scored=6)


def test_settings_of_methods() -> None:
    assert settings("feedback", 5, 8, "0.1").lr == 0.1
    assert settings("auto", 5, 8, "0.1").first_order_lr == 0.1
    assert settings("zo:auto", 5, 8, "auto").first_order == 0


def test_cosine_of_gradients() -> None:
    one = np.array([[3.0, 4.0]], np.float32)
    assert cosine(one, 2 * one) == pytest.approx(1)
    assert cosine(one, np.array([[-4.0, 3.0]], np.float32)) == pytest.approx(0)


@pytest.mark.slow
def test_cosines_and_lines(exported) -> None:
    bundle = exported("llama").bundle("fp32").bundle
    lines = list(cosines(bundle, texts(bundle, 28), 4))
    found = [float(value) for value in re.findall(r"-?\d\.\d{3}", lines[0])]
    assert "layers.1.mlp.down_proj" in lines[0]
    assert found == pytest.approx([1, 1], abs=2e-3)
    options = argparse.Namespace(evaluate_at="2", steps=4, batch=4, lr="auto")
    told = list(learn(bundle, "feedback", (texts(bundle, 12), texts(bundle, 4)), options))
    assert len(told) == 3
    assert "     16 forwards" in told[-1]
