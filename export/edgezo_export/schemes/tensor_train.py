"""Tensor trains: a matrix as a chain of small cores (Oseledets 2011, SIAM J. Sci. Comput. 33)."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edgezo_export.graph_builder import GraphBuilder

LARGEST_FACTOR = 16


def factorize(size: int, largest: int = LARGEST_FACTOR) -> tuple[int, ...]:
    """Factorize `size` into as few factors of at most `largest` as possible, as equal as possible.

    Factors are in ascending order; a larger prime stays whole. 576 gives (8, 8, 9), 64 gives
    (8, 8), 97 gives (97,).
    """
    for count in range(1, size.bit_length() + 1):
        found = _split(size, count, 2)
        if found is not None and found[-1] <= largest:
            return found
    primes: list[int] = []
    rest, prime = size, 2
    while rest > 1:
        while rest % prime == 0:
            primes.append(prime)
            rest //= prime
        prime += 1
    return tuple(primes) or (1,)


def _split(size: int, count: int, smallest: int) -> tuple[int, ...] | None:
    """Return `count` ascending factors whose largest is as small as possible."""
    if count == 1:
        return (size,) if size >= smallest or size == 1 else None
    best: tuple[int, ...] | None = None
    for first in range(smallest, round(size ** (1 / count)) + 1):
        rest = _split(size // first, count - 1, first) if size % first == 0 else None
        if rest is not None and (best is None or rest[-1] < best[-1]):
            best = (first, *rest)
    return best


def core_shapes(rows: int, columns: int, rank: int) -> tuple[tuple[int, int, int], ...]:
    """Return the shapes (r, k, r') of the cores of a matrix: rows first, then columns."""
    factors = (*factorize(rows), *factorize(columns))
    last = len(factors) - 1
    return tuple(
        (1 if index == 0 else rank, factor, 1 if index == last else rank)
        for index, factor in enumerate(factors)
    )


def halves(
    draft: GraphBuilder,
    cores: Sequence[ir.Value],
    shapes: Sequence[tuple[int, int, int]],
    rows: int,
) -> tuple[ir.Value, ir.Value]:
    """Append the matrix as left (P, rows, r) times right (P, r, columns), never as a whole.

    Args:
        draft: the graph.
        cores: (P, r, k, r') each.
        shapes: of the cores, without P.
        rows: of the matrix.
    """
    size, middle = 1, 0
    while size < rows:
        size *= shapes[middle][1]
        middle += 1
    left = _chain(draft, cores[:middle], shapes[:middle])
    right = _chain(draft, cores[middle:], shapes[middle:])
    rank = shapes[middle][0]
    return (
        draft.op("Reshape", left, draft.ints(0, -1, rank)),
        draft.op("Reshape", right, draft.ints(0, rank, -1)),
    )


def _chain(
    draft: GraphBuilder, cores: Sequence[ir.Value], shapes: Sequence[tuple[int, int, int]]
) -> ir.Value:
    """Multiply cores along their ranks: (P, r k1 k2 ..., r')."""
    result = cores[0]
    for core, (rank, size, after) in zip(cores, shapes, strict=True):
        if core is cores[0]:
            result = draft.op("Reshape", core, draft.ints(0, -1, after))
            continue
        flat = draft.op("Reshape", core, draft.ints(0, rank, size * after))
        wide = draft.op("MatMul", result, flat)  # (P, r k1 ..., k r')
        result = draft.op("Reshape", wide, draft.ints(0, -1, after))
    return result
