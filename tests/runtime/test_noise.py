"""Noise: pinned bits, the stated distribution, and independence between streams."""

import hashlib
import math
import struct
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgezo_runtime import noise as noise_module
from edgezo_runtime.errors import UsageError
from edgezo_runtime.noise import NoiseKind, add_weighted_noise, derive_seed, noise, noise_rows

KINDS: tuple[NoiseKind, ...] = ("rademacher", "gaussian")
NAME = "model.layers.3.self_attn.q_proj.lora_B"
MASK = 2**64 - 1


def reference_word(seed: int, name: str, kind: str, row: int, index: int) -> int:
    """The documented hash, written once more with Python's own integers."""
    key = hashlib.blake2b(
        name.encode(),
        digest_size=16,
        salt=struct.pack("<QQ", seed, row),
        person=b"ezo/" + kind.encode(),
    ).digest()
    k1, k2 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    x = ((index + 1) * 0x9E3779B97F4A7C15 + k1) & MASK
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9 + k2) & MASK
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
    return x ^ x >> 31


@pytest.mark.parametrize(("seed", "row"), [(0, 0), (1, 7), (MASK, MASK)])
def test_elements_follow_the_documented_construction(seed: int, row: int) -> None:
    signs = noise(seed, NAME, (300,), kind="rademacher", row=row)
    normal = noise(seed, NAME, (300,), kind="gaussian", row=row)
    for i in (0, 1, 63, 64, 130, 299):
        bit = reference_word(seed, NAME, "rademacher", row, i // 64) >> (i % 64) & 1
        assert signs[i] == 1 - 2 * bit
        word = reference_word(seed, NAME, "gaussian", row, i)
        ones = (word >> 32).bit_count()
        total = 65536 * (ones - 16) + (word & 0xFFFF) + (word >> 16 & 0xFFFF) - 65535
        unit = np.float32(1 / math.sqrt(65536**2 * (8 + 1 / 6) - 1 / 6))
        assert normal[i] == np.float32(total) * unit


def test_golden_values_never_change() -> None:
    """A journal replays only while these hold: a change needs a new journal version."""
    signs = noise(0, NAME, (16,), kind="rademacher")
    assert "".join("+" if s > 0 else "-" for s in signs) == "++-+--+---+-+---"
    normal = noise(7, NAME, (4,), kind="gaussian", row=2)
    assert [int(v) for v in normal.view(np.uint32)] == [
        1064903542,
        3193339894,
        1068164918,
        3170934461,
    ]
    digests = {
        kind: hashlib.sha256(noise(42, "w", (70_001,), kind=kind).astype("<f4").tobytes())
        for kind in KINDS
    }
    assert digests["rademacher"].hexdigest()[:16] == "128b840fcaed32a7"
    assert digests["gaussian"].hexdigest()[:16] == "20d15af74734ce90"
    assert derive_seed(0, "step", 0) == 7341501630803347147
    assert derive_seed(0, "step", 1) == 8850840396734368536


@pytest.mark.parametrize("kind", KINDS)
def test_moments_match_the_documented_distribution(kind: NoiseKind) -> None:
    z = noise(0, NAME, (2_000_000,), kind=kind).astype(np.float64)
    excess_kurtosis = {"rademacher": -2.0, "gaussian": -0.0602}[kind]
    n = z.size
    fourth = excess_kurtosis + 3
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs((z**2).mean() - 1) < 4 * math.sqrt(max(fourth - 1, 1e-12) / n) + 1e-6
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - fourth) < 4 * math.sqrt(96 / n)
    assert abs((z[1:] * z[:-1]).mean()) < 4 / math.sqrt(n)
    assert abs((z[64:] * z[:-64]).mean()) < 4 / math.sqrt(n)


def test_gaussian_quantiles_are_close_to_normal() -> None:
    z = noise(1, NAME, (1_000_000,), kind="gaussian")
    assert np.abs(z).max() < 5.95
    for x in (-3.0, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0, 3.0):
        normal = 0.5 * math.erfc(-x / math.sqrt(2))
        # .001 for the difference in shape, 4 standard errors for chance
        assert abs((z < x).mean() - normal) < 1e-3 + 4 * math.sqrt(normal * (1 - normal) / z.size)


@pytest.mark.parametrize("kind", KINDS)
def test_streams_of_other_seeds_names_and_rows_are_uncorrelated(kind: NoiseKind) -> None:
    n = 100_000
    keys = [(s, w, r) for s in (0, 1, 2**63) for w in ("a", "b", "ab") for r in (0, 1, 2)]
    z = np.stack([noise(s, w, (n,), kind=kind, row=r) for s, w, r in keys]).astype(np.float64)
    off_diagonal = (z @ z.T / n)[~np.eye(len(keys), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / math.sqrt(n)


def test_the_two_kinds_have_streams_of_their_own() -> None:
    signs = noise(3, NAME, (50_000,), kind="rademacher")
    normal = noise(3, NAME, (50_000,), kind="gaussian")
    assert abs(float((signs * normal).mean())) < 4 / math.sqrt(50_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 4095, 4097, 262_145])
def test_a_shorter_array_is_the_beginning_of_a_longer_one(kind: NoiseKind, size: int) -> None:
    longest = noise(5, NAME, (262_200,), kind=kind)
    np.testing.assert_array_equal(noise(5, NAME, (size,), kind=kind), longest[:size])


@pytest.mark.parametrize("kind", KINDS)
def test_shape_only_folds_the_flat_stream(kind: NoiseKind) -> None:
    z = noise(5, NAME, (3, 5, 7), kind=kind)
    assert z.shape == (3, 5, 7)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z.reshape(-1), noise(5, NAME, (105,), kind=kind))
    assert noise(5, NAME, (0, 4), kind=kind).shape == (0, 4)
    assert noise(5, NAME, (), kind=kind) == noise(5, NAME, (1,), kind=kind)[0]


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 300),
    coeff=st.lists(st.floats(-10, 10, width=32), max_size=5),
    seed=st.integers(0, MASK),
    kind=st.sampled_from(KINDS),
)
def test_weighted_sum_adds_rows_in_order(
    size: int, coeff: list[float], seed: int, kind: NoiseKind
) -> None:
    start = noise(1, "start", (size,), kind="gaussian")
    expected = start.copy()
    for row, weight in enumerate(coeff):
        expected = expected + np.float32(weight) * noise(seed, NAME, (size,), kind=kind, row=row)
    total = add_weighted_noise(start, seed, NAME, coeff, kind=kind)
    assert total is start
    np.testing.assert_array_equal(total, expected)


def test_weighted_sum_crosses_pieces() -> None:
    size = 64 * 4096 + 17
    total = add_weighted_noise(np.zeros(size, np.float32), 9, NAME, [1.5, -0.5], kind="rademacher")
    rows = [noise(9, NAME, (size,), kind="rademacher", row=row) for row in (0, 1)]
    np.testing.assert_array_equal(total, np.float32(1.5) * rows[0] + np.float32(-0.5) * rows[1])


def test_word_arithmetic_does_not_depend_on_the_piece() -> None:
    keys = noise_module._keys(1, NAME, "gaussian", (0, 3))
    whole = noise_module._words(keys, 0, 100)
    np.testing.assert_array_equal(noise_module._words(keys, 40, 60), whole[:, 40:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5,), (3, 70), (9000,), (600, 700)])
def test_rows_at_once_are_rows_one_by_one(kind: NoiseKind, shape: tuple[int, ...]) -> None:
    rows = [0, 7, 7, 2**40]
    together = noise_rows(5, NAME, rows, shape, kind=kind)
    for row, part in zip(rows, together, strict=True):
        np.testing.assert_array_equal(part, noise(5, NAME, shape, kind=kind, row=row))
    assert noise_rows(5, NAME, [], shape, kind=kind).shape == (0, *shape)


def test_out_is_written_and_returned() -> None:
    out = np.zeros((4, 5), np.float32)
    assert noise(1, NAME, (4, 5), kind="gaussian", out=out) is out
    np.testing.assert_array_equal(out, noise(1, NAME, (4, 5), kind="gaussian"))


@pytest.mark.parametrize(
    "out",
    [np.zeros((5, 4), np.float32), np.zeros((4, 5)), np.zeros((5, 4), np.float32).T],
    ids=["shape", "dtype", "order"],
)
def test_an_unfit_out_is_refused(out: npt.NDArray[np.float32]) -> None:
    with pytest.raises(UsageError, match="out must be C-contiguous float32"):
        noise(1, NAME, (4, 5), kind="gaussian", out=out)


@pytest.mark.parametrize("bad", [{"seed": -1}, {"seed": 2**64}, {"seed": 0, "row": -1}])
def test_seeds_and_rows_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"must be 0 to 2\*\*64 - 1, not"):
        noise(bad["seed"], NAME, (1,), kind="gaussian", row=bad.get("row", 0))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="one of rademacher, gaussian, not 'uniform'"):
        noise(0, NAME, (1,), kind=cast(NoiseKind, "uniform"))


def test_derived_seeds_differ() -> None:
    seeds = {derive_seed(s, label, i) for s in (0, 1) for label in ("a", "b") for i in range(50)}
    assert len(seeds) == 200
