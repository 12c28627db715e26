"""Random numbers that depend on a seed and a name only."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, name: str) -> np.random.Generator:
    """A stream of its own for every seed and name."""
    digest = hashlib.blake2b(name.encode(), digest_size=16, key=seed.to_bytes(8, "little")).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
