"""Sizes: units, shares, what is refused, and that a printed size is at least what was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgezo_runtime.errors import UsageError
from edgezo_runtime.system import memory
from edgezo_runtime.system.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GB", 8 * 10**9),
        ("8GiB", 8 * 2**30),
        ("750MB", 750 * 10**6),
        ("1.5 gb", 15 * 10**8),
        ("0.1GiB", 107374182),
        (" 12KiB ", 12 * 1024),
        ("2TB", 2 * 10**12),
        ("4096", 4096),
        ("4096B", 4096),
        (4096, 4096),
        ("80%", 800),
        ("12.5%", 125),
        ("100%", 1000),
        ("auto", 800),
        ("AUTO", 800),
    ],
)
def test_parse_size(text: str | int, size: int) -> None:
    assert parse_size(text, available=1000) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8G", "write GB .* or GiB"),
        ("8m", "write MB .* or MiB"),
        ("8XB", "unknown unit 'XB'"),
        ("", "expected a size such as 8GB"),
        ("-8GB", "expected a size"),
        ("1e9", "unknown unit|expected a size"),
        ("nan", "expected a size"),
        ("\uff18GB", "expected a size"),
        ("8,5GB", "expected a size"),
        ("0", "0 bytes is not between"),
        ("0.1B", "0 bytes is not between"),
        (-1, "is not between"),
        ("99999999TB", "is not between"),
        ("101%", "at most 100%"),
        ("0%", "0 bytes is not between"),
        (True, "expected text such as 8GB"),
        (2.0, "expected text such as 8GB"),
    ],
)
def test_parse_size_refuses(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_size(text, available=1000)


def test_share_is_of_the_memory_available_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 4000)
    assert parse_size("50%") == 2000


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 KB"),
        (239_000_000, "239 MB"),
        (1_250_000_000, "1.25 GB"),
        (12_340_000_000, "12.3 GB"),
        (999_999, "1.00 MB"),
        (8 * 10**9, "8.00 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_format_size(size: int, text: str) -> None:
    assert format_size(size) == text


def test_rounding_up_is_asked_for() -> None:
    assert format_size(1_250_000_001) == "1.25 GB"
    assert format_size(1_250_000_001, up=True) == "1.26 GB"


@given(st.integers(1, 10**17))
def test_formatted_size_parses_back(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.006)
    assert size <= parse_size(format_size(size, up=True)) <= size * 1.011
