"""F1 of classes against its definition by precision and recall."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_runtime.evaluation.class_f1 import f1_by_class, macro_f1


def test_it_is_the_harmonic_mean_of_precision_and_recall():
    generator = np.random.default_rng(0)
    labels, found = generator.integers(0, 4, (2, 200))
    expected = []
    for number in range(4):
        precision = (labels[found == number] == number).mean()
        recall = (found[labels == number] == number).mean()
        expected.append(2 / (1 / precision + 1 / recall))
    assert f1_by_class(labels, found, 4) == pytest.approx(expected)
    assert macro_f1(labels, found, 4) == pytest.approx(np.mean(expected))


def test_classes_that_do_not_occur_do_not_count():
    labels, found = np.array([0, 0, 1]), np.array([0, 1, 1])
    assert f1_by_class(labels, found, 3) == [2 / 3, 2 / 3, None]
    assert macro_f1(labels, found, 3) == pytest.approx(2 / 3)


def test_a_class_that_is_never_right_counts_as_nothing():
    labels, found = np.array([0, 0, 1]), np.array([0, 0, 0])
    assert f1_by_class(labels, found, 2) == [4 / 5, 0]
    assert macro_f1(labels, found, 2) == pytest.approx(0.4)
    assert macro_f1(np.array([], np.int64), np.array([], np.int64), 2) == 0
