"""Codes: inverse pairs that put what the probes share in the first row."""

import numpy as np
import numpy.typing as npt
import pytest

from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.errors import UsageError


@pytest.mark.parametrize(
    "scales",
    [(0.0,), (0.5,), (1e-3, -1e-3), (-2.0, 2.0), (0.0, 1e-2), (0.0, *[1e-3] * 7), (1e-3,) * 4],
)
def test_decode_undoes_code_to_the_last_bit(scales: tuple[float, ...]) -> None:
    code, decode = code_matrices(scales)
    groups = len(scales)
    assert code.shape == decode.shape == (groups, groups)
    assert code.dtype == decode.dtype == np.float32
    np.testing.assert_array_equal(decode @ code, np.eye(groups))


@pytest.mark.parametrize("groups", [3, 5, 6, 12])
def test_decode_undoes_a_mean_code(groups: int) -> None:
    code, decode = code_matrices((1e-3,) * groups)
    np.testing.assert_allclose(decode @ code, np.eye(groups), atol=groups * 1e-7)


def test_antithetic_pair_gives_centre_and_half_difference() -> None:
    code, _ = code_matrices((1e-3, -1e-3))
    np.testing.assert_array_equal(code @ np.array([5, 3], np.float32), [4, 1])


def test_one_sided_gives_base_and_differences() -> None:
    code, _ = code_matrices((0.0, 1e-3, 1e-3))
    np.testing.assert_array_equal(code @ np.array([5, 3, 6], np.float32), [5, -2, 1])


def test_other_scales_give_mean_and_differences() -> None:
    code, _ = code_matrices((1e-3, -1e-3, 2e-3, 1e-3))
    np.testing.assert_array_equal(code @ np.array([1, 2, 3, 6], np.float32), [3, -1, 0, 3])


@pytest.mark.parametrize("scales", [(0.0, 1.0, 1.0), (1.0, -1.0), (1.0, 2.0, 3.0)])
def test_probes_that_agree_have_differences_of_zero(scales: tuple[float, ...]) -> None:
    code, _ = code_matrices(scales)
    coded = code @ np.full(len(scales), 8, np.float32)
    np.testing.assert_allclose(coded[1:], 0, atol=1e-6)
    np.testing.assert_allclose(coded[0], 8, rtol=1e-6)


@pytest.mark.parametrize("scales", [(1e-2, -1e-2), (0.0, 1e-2, 1e-2), (1e-2, 1e-2, 1e-2)])
def test_coding_keeps_small_differences_through_int8(scales: tuple[float, ...]) -> None:
    """What the code is for: differences of a quantized linear layer follow the exact ones."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 256))
    base = rng.normal(size=256)
    x = np.stack([base + 1e-3 * rng.normal(size=256) for _ in scales])  # (G, 256)
    code, decode = code_matrices(scales)

    def quantize(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        unit = np.abs(rows).max(axis=1, keepdims=True) / 127
        return np.asarray(np.round(rows / unit) * unit)

    exact = (x[1] - x[0]) @ weight.T
    plain = quantize(x) @ weight.T
    coded = decode @ (quantize(code @ x) @ weight.T)
    error_plain = np.linalg.norm(plain[1] - plain[0] - exact) / np.linalg.norm(exact)
    error_coded = np.linalg.norm(coded[1] - coded[0] - exact) / np.linalg.norm(exact)
    assert error_coded < 0.05
    assert error_plain > 10 * error_coded


@pytest.mark.parametrize("scales", [(), (1.0, float("nan")), (float("inf"), 0.0)])
def test_unfit_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="finite numbers, at least one"):
        code_matrices(scales)
