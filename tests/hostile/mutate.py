"""Changes of valid files: flipped, cut, inserted and repeated bytes, and numbers beyond reason."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_HUGE = (b"0", b"-1", b"1e999", b"4294967296", b"9223372036854775808", b"1152921504606846976")
_WORDS = (b"null", b"true", b"{}", b"[]", b'""', b'"\\ud800"', b'"../x"', b'"\\u0000"', b"[[[[[[[[")
_RAW = (b"\x00" * 8, b"\xff" * 8, b"\x80" * 10, b"\xe2", b"\x7f", (2**60).to_bytes(8, "little"))

Change = Callable[[bytes, random.Random], bytes]


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _cut(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + (b"" if rng.random() < 0.3 else data[at + rng.randrange(1, 16) :])


def _insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_WORDS + _RAW + _HUGE) + data[at:]


def _overwrite(data: bytes, rng: random.Random) -> bytes:
    at, new = rng.randrange(len(data)), rng.choice(_RAW)
    return data[:at] + new + data[at + len(new) :]


def _repeat(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 64)]
    at = rng.choice((start, rng.randrange(len(data))))
    return data[:at] + piece * rng.choice((1, 1, 2, 50)) + data[at:]


def _number(data: bytes, rng: random.Random) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return _overwrite(data, rng)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(_HUGE + _WORDS) + data[match.end() :]


CHANGES: tuple[Change, ...] = (_flip, _cut, _insert, _overwrite, _repeat, _number, _number)


def mutate(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the seeds with one to four changes, now and then spliced with another one."""
    data = rng.choice(seeds)
    if rng.random() < 0.1:
        other = rng.choice(seeds)
        data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if data:
            data = rng.choice(CHANGES)(data, rng)
    return data
