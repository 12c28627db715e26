"""Chunks of a tensor, worked on by several threads and taken in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST = 4
"""Threads: each holds a chunk and its copies."""

In = TypeVar("In")
Out = TypeVar("Out")


def in_order(work: Callable[[In], Out], chunks: Iterable[In]) -> Iterator[Out]:
    """Yield `work` of every chunk in the order of the chunks.

    numpy lets other threads run while it computes. The next chunk is read meanwhile.

    Memory:
        A chunk and its result for each thread, and one more.
    """
    threads = min(MOST, os.cpu_count() or 1)
    waiting: deque[Future[Out]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="edgezo-chunks") as pool:
        try:
            for chunk in chunks:
                waiting.append(pool.submit(work, chunk))
                del chunk
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
