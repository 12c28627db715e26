"""The file that caches float16 numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgezo_runtime.errors import CacheRangeError, DivergedError
from edgezo_runtime.system.float16_file import Float16File, to_float16

SIZES = np.array([3, 0, 5], np.int64)


def numbers(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float16)


def test_rounding_refuses_what_float16_cannot_hold() -> None:
    values = np.array([1.0, 65504.0, -(2.0**-24)], np.float32)
    np.testing.assert_array_equal(to_float16(values), values.astype(np.float16))
    assert to_float16(np.zeros(0, np.float32)).size == 0
    for bad in (65536.0, np.inf, np.nan):
        with pytest.raises(CacheRangeError, match="start another run without `prefix_cache`"):
            to_float16(np.array([1.0, bad], np.float32))
    assert issubclass(CacheRangeError, DivergedError)


def test_entries_are_read_as_they_were_written(tmp_path: Path) -> None:
    cache = Float16File(tmp_path / "c", SIZES)
    assert cache.read(0) is None
    cache.write(2, numbers(2), numbers(3, 10))
    cache.write(0, numbers(3, 5))
    np.testing.assert_array_equal(cache.read(0), [5, 6, 7])
    np.testing.assert_array_equal(cache.read(2), [0, 1, 10, 11, 12])
    first, second = np.empty(4, np.float16), np.empty(1, np.float16)
    assert cache.read_into(2, first, second)
    np.testing.assert_array_equal([*first, *second], [0, 1, 10, 11, 12])
    assert cache.size_bytes == 16
    cache.extend(np.array([2], np.int64))
    assert cache.read(3) is None
    cache.write(3, numbers(2, 7))
    np.testing.assert_array_equal(cache.read(3), [7, 8])
    assert cache.size_bytes == (tmp_path / "c").stat().st_size == 20
    cache.close()
    cache.close()


def test_an_old_file_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"old")
    Float16File(tmp_path / "c", SIZES).close()
    assert (tmp_path / "c").read_bytes() == b""


def test_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    cache = Float16File(tmp_path / "c", SIZES, max_bytes=15)
    cache.write(0, numbers(3))
    cache.write(2, numbers(5))
    assert cache.read(0) is not None
    assert cache.read(2) is None
    assert cache.size_bytes == 15
    cache.write(0, numbers(2))  # of another size than the entry
    np.testing.assert_array_equal(cache.read(0), [0, 1, 2])
    cache.close()


def test_a_full_disk_ends_caching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Float16File(tmp_path / "c", SIZES)
    cache.write(0, numbers(3))

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("edgezo_runtime.system.float16_file.os.pwritev", full)
        cache.write(2, numbers(5))
    cache.write(2, numbers(5))
    assert cache.read(2) is None
    np.testing.assert_array_equal(cache.read(0), [0, 1, 2])
    cache.close()


def test_without_a_file_zeros_are_read() -> None:
    cache = Float16File(None, SIZES)
    assert cache.read(0) is None
    cache.write(0, numbers(3, 5))
    np.testing.assert_array_equal(cache.read(0), [0, 0, 0])
    cache.close()
