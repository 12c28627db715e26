"""Losses against torch and closed forms."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.data.batches import Batch
from edgezo_runtime.data.example_set import Kind
from edgezo_runtime.engine.losses import (
    class_scores,
    example_losses,
    expected_mistakes,
    predictions,
    score_gradients,
)
from edgezo_runtime.errors import UsageError

RNG = np.random.Generator(np.random.Philox(3))


def make(kind: Kind, tokens_per_row: list[int], labels: list[int], classes: int = 0) -> Batch:
    """A batch of which only what losses need is filled in."""
    rows = len(tokens_per_row)
    row_numbers = np.repeat(np.arange(rows), tokens_per_row)
    columns = np.concatenate([np.arange(count) for count in tokens_per_row])
    return Batch(
        kind=kind,
        example_ids=np.arange(rows) // (rows // len(labels)),
        input_ids=np.zeros((rows, 8), np.int64),
        lengths=np.full(rows, 8, np.int64),
        positions=np.stack([row_numbers, columns], axis=1),
        targets=np.zeros(sum(tokens_per_row), np.int64),
        label_ids=np.arange(classes) if kind == "labels" else None,
        row_example=np.arange(rows) // (rows // len(labels)),
        labels=np.array(labels, np.int64),
    )


LABELS = make("labels", [1] * 4, [0, 2, 1, 2], classes=3)
CANDIDATES = make("candidates", [1, 3, 2, 1, 3, 2], [2, 0])
COMPLETION = make("completion", [5, 1, 3], [-1, -1, -1])


def normal(*shape: int, scale: float = 3) -> npt.NDArray[np.float32]:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def test_labels_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    scores = normal(3, 4, 3, scale=20)
    want = [
        torch.nn.functional.cross_entropy(
            torch.tensor(group).double(), torch.tensor(LABELS.labels), reduction="none"
        ).numpy()
        for group in scores
    ]
    got = example_losses(LABELS, scores)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_candidates_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")
    scores = -np.abs(normal(2, 12))
    parts = [torch.tensor(group).double().split([1, 3, 2, 1, 3, 2]) for group in scores]
    means = torch.stack([torch.stack([p.mean() for p in group]) for group in parts])
    want = [
        torch.nn.functional.cross_entropy(
            group.reshape(2, 3), torch.tensor(CANDIDATES.labels), reduction="none"
        ).numpy()
        for group in means
    ]
    np.testing.assert_allclose(example_losses(CANDIDATES, scores), want, rtol=1e-12)
    np.testing.assert_array_equal(
        predictions(CANDIDATES, scores), means.reshape(2, 2, 3).argmax(2).numpy()
    )


def test_completion_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    logits, targets = normal(9, 17), np.arange(9)
    log_probs = torch.tensor(logits).double().log_softmax(1)[torch.arange(9), torch.arange(9)]
    want = [
        torch.nn.functional.cross_entropy(
            torch.tensor(logits[a:b]).double(), torch.tensor(targets[a:b])
        ).item()
        for a, b in ((0, 5), (5, 6), (6, 9))
    ]
    scores = log_probs.numpy().astype(np.float32)[None]
    np.testing.assert_allclose(example_losses(COMPLETION, scores)[0], want, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 77])
def test_equal_logits_give_log_of_the_number_of_classes(classes: int) -> None:
    batch = make("labels", [1], [1], classes=classes)
    scores = np.full((2, 1, classes), 1e4, np.float32)
    np.testing.assert_allclose(example_losses(batch, scores), math.log(classes), rtol=1e-14)


def test_two_classes_give_the_logistic_loss() -> None:
    batch = make("labels", [1], [0], classes=2)
    for margin in (-800.0, -1.0, 0.0, 1e-3, 30.0):
        got = example_losses(batch, np.array([[[margin, 0]]], np.float32))[0, 0]
        assert got == pytest.approx(np.logaddexp(0, -np.float64(np.float32(margin))), rel=1e-9)


def test_completion_is_the_mean_over_the_examples_own_tokens() -> None:
    scores = -np.arange(9, dtype=np.float32)[None]
    assert example_losses(COMPLETION, scores).tolist() == [[2.0, 5.0, 7.0]]


def test_small_differences_survive() -> None:
    """Two sides of a probe: the difference of the losses is that of the float32 scores."""
    base = np.float32(11.3)
    step = np.spacing(base)
    scores = np.array([[[base, 1]], [[base + step, 1]]], np.float32)
    batch = make("labels", [1], [1], classes=2)
    plus, minus = example_losses(batch, scores)[:, 0]
    assert minus - plus == pytest.approx(float(step), rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_scores_stay_in_their_example(bad: float) -> None:
    for batch, scores, place, example in (
        (LABELS, normal(2, 4, 3), (1, 1, 2), 1),
        (CANDIDATES, normal(2, 12), (1, 4), 0),
        (COMPLETION, normal(2, 9), (1, 5), 1),
    ):
        scores[place] = bad
        losses = example_losses(batch, scores)
        finite = np.isfinite(losses)
        assert not finite[1, example]
        assert finite.sum() == finite.size - 1


def test_impossible_wrong_class_is_fine() -> None:
    scores = np.array([[[1, -np.inf, 1]]], np.float32)
    batch = make("labels", [1], [0], classes=3)
    np.testing.assert_allclose(example_losses(batch, scores), math.log(2), rtol=1e-14)


def test_predictions() -> None:
    scores = normal(2, 4, 3)
    assert predictions(LABELS, scores).tolist() == scores.argmax(2).tolist()
    scores[0, 1, 2] = np.nan
    assert predictions(LABELS, scores)[0, 1] == -1
    assert predictions(LABELS, np.zeros((1, 4, 3), np.float32)).tolist() == [[0] * 4]


def test_arguments_are_left_alone() -> None:
    scores = normal(2, 4, 3)
    before = scores.copy()
    example_losses(LABELS, scores)
    class_scores(LABELS, scores)[:] = 0
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(
    ("batch", "shape", "message"),
    [
        (LABELS, (2, 4, 2), r"shape \(2, 4, 2\), expected \(G, 4, 3\)"),
        (LABELS, (2, 12), r"expected \(G, 4, 3\)"),
        (CANDIDATES, (2, 11), r"expected \(G, 12\)"),
        (COMPLETION, (9,), r"expected \(G, 9\)"),
    ],
)
def test_wrong_shapes(batch: Batch, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        example_losses(batch, np.zeros(shape, np.float32))


def test_what_cannot_be_scored() -> None:
    with pytest.raises(UsageError, match="no classes to score or predict"):
        predictions(COMPLETION, normal(1, 9))
    with pytest.raises(UsageError, match="needs the class of every example"):
        example_losses(make("labels", [1], [-1], classes=2), normal(1, 1, 2))


@pytest.mark.parametrize("batch", [LABELS, CANDIDATES, COMPLETION], ids=lambda b: b.kind)
def test_score_gradients_are_differences_of_losses(batch: Batch) -> None:
    shape = (4, 3) if batch.kind == "labels" else (batch.targets.size,)
    scores = -np.abs(normal(*shape))
    found = score_gradients(batch, scores)
    assert found.dtype == np.float32
    assert found.shape == scores.shape
    step = np.float32(2**-6)
    for place in np.ndindex(shape):
        both = np.stack([scores, scores])
        both[0][place] += step
        both[1][place] -= step
        high, low = example_losses(batch, both).sum(axis=1)
        assert found[place] == pytest.approx((high - low) / (2 * step), abs=1e-4)


def test_score_gradients_need_classes() -> None:
    unknown = make("labels", [1] * 4, [0, -1, 1, 2], classes=3)
    with pytest.raises(UsageError, match="class of every example"):
        score_gradients(unknown, normal(4, 3))


def test_expected_mistakes_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    labels = [0, 2, 1, 2]
    batch = make("labels", [1] * 4, labels, classes=3)
    scores = RNG.normal(0, 2, (4, 3)).astype(np.float32)
    losses, slopes = example_losses(batch, scores[None])[0], score_gradients(batch, scores)
    found, gradients = expected_mistakes(losses, slopes)
    z = torch.tensor(scores, requires_grad=True)
    expected = 1 - torch.softmax(z, 1)[torch.arange(4), torch.tensor(labels)]
    expected.sum().backward()
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(gradients, z.grad.numpy(), rtol=1e-4, atol=1e-7)
