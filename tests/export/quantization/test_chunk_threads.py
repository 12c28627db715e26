"""Work on chunks by several threads."""

from __future__ import annotations

import time

import pytest

from edgezo_export.quantization.chunk_threads import in_order


def test_results_come_in_the_order_of_the_chunks():
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 if number < 2 else 0)
        return number * number

    assert list(in_order(slow_at_first, range(20))) == [n * n for n in range(20)]


def test_few_chunks_are_read_ahead():
    read: list[int] = []

    def chunks():
        for number in range(100):
            read.append(number)
            yield number

    results = in_order(lambda number: number, chunks())
    assert next(results) == 0
    assert len(read) < 10
    results.close()


@pytest.mark.parametrize("where", ["work", "chunks"])
def test_errors_come_out(where):
    def chunks():
        yield 1
        if where == "chunks":
            raise ValueError("unreadable")
        yield 0

    with pytest.raises((ValueError, ZeroDivisionError)):
        list(in_order(lambda number: 1 // number, chunks()))
