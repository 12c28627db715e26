"""The perturbation z(seed, tensor name, row): counter-based noise, the same bits on every machine.

Word i of a stream is a keyed hash of the counter i, so any element can be made without those
before it, and no state is kept between calls:

    (k1, k2) = BLAKE2b-128(name in UTF-8; seed and row as salt; kind as personalization)
    x = (i + 1) * 0x9E3779B97F4A7C15 + k1
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 + k2
    x = (x ^ x >> 27) * 0x94D049BB133111EB
    word_i = x ^ x >> 31                                    (all modulo 2**64)

This is SplitMix64 with a second key word between its rounds. Only integer operations and one
float32 multiplication follow, so no result depends on libm, BLAS, threads, the order of calls or
the byte order of the machine. An element depends on its flat (C order) index only, so a shorter
array is the beginning of a longer one. `docs/decisions/0002-noise.md` says why.

References:
    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (counter-based generators).
    Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import UsageError

NoiseKind = Literal["rademacher", "gaussian"]
Float32Array = npt.NDArray[np.float32]
_Words = npt.NDArray[np.uint64]
_Keys = npt.NDArray[np.uint64]

_WORDS_AT_ONCE = 4096  # 32 KiB of words: the temporaries stay in the first two cache levels
_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
# 1 / sqrt(65536**2 * (8 + 1/6) - 1/6), the standard deviation of the integer in `_fill_gaussian`
_GAUSSIAN_UNIT = np.float32(5.339463899424956e-06)


def noise(
    seed: int,
    name: str,
    shape: Sequence[int],
    *,
    kind: NoiseKind,
    row: int = 0,
    out: Float32Array | None = None,
) -> Float32Array:
    """Make z for one tensor: independent elements of mean zero and variance one.

    "rademacher" is +1 or -1, 64 elements per hash word. "gaussian" is the sum of 32 fair bits and
    two 16-bit uniforms, scaled to unit variance: it has a piecewise linear density, excess
    kurtosis -0.060 (a normal has 0) and no value beyond 5.95; one hash word per element.

    Args:
        seed: 0 to 2**64 - 1; 0 is a seed like any other.
        name: the tensor's name.
        shape: the tensor's shape, without a leading row axis.
        kind: the distribution.
        row: 0 to 2**64 - 1; examples with noise of their own use their place in the batch.
        out: C-contiguous float32 array of that shape to write to; a new one if None.

    Returns:
        float32 array of `shape` (`out` if given).

    Raises:
        UsageError: seed or row out of range, an unknown kind, or an unfit `out`.

    Memory:
        The result, and about 1 MB of scratch however large it is.
    """
    result = np.empty(tuple(shape), np.float32) if out is None else out
    if result.shape != tuple(shape) or result.dtype != np.float32 or not result.flags.c_contiguous:
        raise UsageError(
            f"noise for '{name}': out must be C-contiguous float32 of shape {tuple(shape)}, "
            f"not {result.dtype} of shape {result.shape}"
        )
    _fill(seed, name, kind, (row,), result.reshape(1, -1))
    return result


def noise_rows(
    seed: int, name: str, rows: Sequence[int], shape: Sequence[int], *, kind: NoiseKind
) -> Float32Array:
    """Make z for several rows at once: element [i] is noise(..., row=rows[i]).

    Returns:
        (len(rows), *shape) float32.

    Raises:
        UsageError: as for `noise`.
    """
    result = np.empty((len(rows), math.prod(shape)), np.float32)
    _fill(seed, name, kind, rows, result)
    return result.reshape(len(rows), *shape)


def add_weighted_noise(
    out: Float32Array, seed: int, name: str, coeff: Sequence[float], *, kind: NoiseKind
) -> Float32Array:
    """Add sum_b coeff[b] * z(seed, name, row=b) to `out`, in place.

    Each element is the float32 sum out + (c_0 z_0) + (c_1 z_1) + ... taken from left to right,
    with every coefficient first rounded to float32: the result does not depend on the machine.

    Args:
        out: C-contiguous float32 array of the tensor's shape.
        seed: as for `noise`.
        name: the tensor's name.
        coeff: one weight a row.
        kind: the distribution.

    Returns:
        `out`.

    Raises:
        UsageError: as for `noise`.

    Memory:
        About 2 MB of scratch, however large `out` is.
    """
    if out.dtype != np.float32 or not out.flags.c_contiguous:
        raise UsageError(f"noise sum for '{name}': out must be C-contiguous float32")
    flat = out.reshape(-1)
    weights = [np.float32(c) for c in coeff]
    for start, stop in _ranges(flat.size, kind):
        at_once = max(1, _PER_WORD[kind] * _WORDS_AT_ONCE // max(1, stop - start))
        for first in range(0, len(weights), at_once):
            rows = range(first, min(first + at_once, len(weights)))
            z = np.empty((len(rows), stop - start), np.float32)
            _fill_range(_keys(seed, name, kind, rows), kind, start, z)
            for row, part in zip(rows, z, strict=True):
                np.multiply(part, weights[row], out=part)
                np.add(flat[start:stop], part, out=flat[start:stop])
    return out


def derive_seed(seed: int, label: str, index: int = 0) -> int:
    """Make the seed of a sub-stream: of one step of a run, of one direction of a step, ...

    Args:
        seed: 0 to 2**64 - 1.
        label: what the sub-stream is for.
        index: 0 to 2**64 - 1, such as the step.

    Returns:
        An integer, 0 to 2**64 - 1, a hash of the three.

    Raises:
        UsageError: seed or index out of range.
    """
    return _key(seed, label, "seed", index)[0]


def _key(seed: int, name: str, kind: str, row: int) -> tuple[int, int]:
    """Hash the name of a stream to 128 bits."""
    for what, value in (("seed", seed), ("row", row)):
        if not 0 <= value < 2**64:
            raise UsageError(f"noise for '{name}': {what} must be 0 to 2**64 - 1, not {value}")
    salt, person = struct.pack("<QQ", seed, row), f"ezo/{kind}".encode()
    digest = hashlib.blake2b(name.encode(), digest_size=16, salt=salt, person=person).digest()
    k1, k2 = struct.unpack("<QQ", digest)
    return k1, k2


def _keys(seed: int, name: str, kind: str, rows: Sequence[int]) -> _Keys:
    """The keys of several rows, (2, len(rows), 1) uint64."""
    keys: _Keys = np.array([_key(seed, name, kind, row) for row in rows], np.uint64)
    return keys.reshape(-1, 2).T[:, :, None]


def _ranges(size: int, kind: str) -> Iterator[tuple[int, int]]:
    """Split `size` elements into (start, stop) ranges whose words fit the caches."""
    if kind not in _FILL:
        raise UsageError(f"noise kind must be one of {', '.join(_FILL)}, not '{kind}'")
    step = _PER_WORD[kind] * _WORDS_AT_ONCE
    for start in range(0, size, step):
        yield start, min(start + step, size)


def _fill(seed: int, name: str, kind: str, rows: Sequence[int], out: Float32Array) -> None:
    """Write the noise of every row to `out`, (len(rows), size)."""
    for start, stop in _ranges(out.shape[1], kind):
        at_once = max(1, _PER_WORD[kind] * _WORDS_AT_ONCE // (stop - start))
        for first in range(0, len(rows), at_once):
            keys = _keys(seed, name, kind, rows[first : first + at_once])
            _fill_range(keys, kind, start, out[first : first + at_once, start:stop])


def _fill_range(keys: _Keys, kind: str, start: int, out: Float32Array) -> None:
    """Write the elements from `start` on of every row."""
    per_word = _PER_WORD[kind]
    count = math.ceil(out.shape[1] / per_word)
    _FILL[kind](_words(keys, start // per_word, count), out)


def _words(keys: _Keys, first: int, count: int) -> _Words:
    """Hash the counters first ... first + count - 1 to words, (rows, count) uint64."""
    counters = np.arange(first + 1, first + 1 + count, dtype=np.uint64)
    counters *= _INCREMENT
    x: _Words = counters + keys[0]
    shifted = np.empty_like(x)
    for shift, multiplier in ((30, _MULTIPLY_1), (27, _MULTIPLY_2)):
        np.right_shift(x, np.uint64(shift), out=shifted)
        x ^= shifted
        x *= multiplier
        if shift == 30:
            x += keys[1]
    np.right_shift(x, np.uint64(31), out=shifted)
    x ^= shifted
    return x


def _fill_rademacher(words: _Words, out: Float32Array) -> None:
    """Write 1 - 2 * bit; element i takes bit i % 64, lowest first, of word i // 64."""
    octets = words.astype("<u8", copy=False).view(np.uint8)  # lowest octet first on any machine
    bits = np.unpackbits(octets, axis=1, count=out.shape[1], bitorder="little")
    np.multiply(bits, np.float32(-2.0), out=out)
    np.add(out, np.float32(1.0), out=out)


def _fill_gaussian(words: _Words, out: Float32Array) -> None:
    """Write (65536 * (ones in the high half - 16) + both low 16-bit fields - 65535) * unit."""
    low = words.astype(np.uint32)  # modulo 2**32
    words >>= np.uint64(32)
    total = _count_ones(words.astype(np.uint32))
    total <<= np.uint32(16)
    total += low & np.uint32(0xFFFF)
    low >>= np.uint32(16)
    total += low
    centred = total.view(np.int32)  # below 34 * 65536: fits either type
    centred -= np.int32(16 * 65536 + 65535)
    np.multiply(centred, _GAUSSIAN_UNIT, out=out, dtype=np.float32, casting="same_kind")


def _count_ones(x: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Replace each 32-bit integer by its number of one bits, in place."""
    half = x >> np.uint32(1)
    half &= np.uint32(0x55555555)
    x -= half  # sixteen 2-bit counts
    np.right_shift(x, np.uint32(2), out=half)
    half &= np.uint32(0x33333333)
    x &= np.uint32(0x33333333)
    x += half  # eight 4-bit counts
    np.right_shift(x, np.uint32(4), out=half)
    x += half
    x &= np.uint32(0x0F0F0F0F)  # four 8-bit counts
    x *= np.uint32(0x01010101)  # their sum in the highest octet
    x >>= np.uint32(24)
    return x


_FILL: dict[str, Callable[[_Words, Float32Array], None]] = {
    "rademacher": _fill_rademacher,
    "gaussian": _fill_gaussian,
}
_PER_WORD: dict[str, int] = {"rademacher": 64, "gaussian": 1}
