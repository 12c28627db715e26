"""A C library whose large allocations fail when they are told to, loaded before the real one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# The allocator of onnxruntime calls posix_memalign, the arena's bookkeeping and numpy the others.
SOURCE = r"""
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

static atomic_long seen;
static long first = LONG_MAX, last = -1;
static size_t smallest;

void edgezo_refuse(long from, long to, size_t size) {
    first = LONG_MAX; smallest = size; last = to; atomic_store(&seen, 0); first = from;
}
long edgezo_seen(void) { return atomic_load(&seen); }

static int refused(size_t size) {
    if (first == LONG_MAX || size < smallest) return 0;
    long number = atomic_fetch_add(&seen, 1);
    return number >= first && number <= last;
}
void *malloc(size_t size) {
    if (refused(size)) { errno = ENOMEM; return NULL; }
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    if (refused(count * size)) { errno = ENOMEM; return NULL; }
    return __libc_calloc(count, size);
}
void *realloc(void *old, size_t size) {
    if (refused(size)) { errno = ENOMEM; return NULL; }
    return __libc_realloc(old, size);
}
int posix_memalign(void **place, size_t alignment, size_t size) {
    if (refused(size)) return ENOMEM;
    *place = __libc_memalign(alignment, size);
    return *place == NULL ? ENOMEM : 0;
}
"""

_NONE = 2**63 - 1


@dataclass(slots=True)
class Refused:
    """What was asked for.

    Attributes:
        seen: large allocations.
    """

    seen: int = 0


@contextmanager
def refusing(first: int, last: int | None, smallest: int) -> Iterator[Refused]:
    """Let allocations fail in this process, which was started with the library.

    Args:
        first: number of the first that fails, from 0.
        last: number of the last that fails; None for no last one.
        smallest: smaller ones neither count nor fail.
    """
    library = ctypes.CDLL(None)
    library.edgezo_seen.restype = ctypes.c_long
    library.edgezo_refuse.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_size_t]
    found = Refused()
    library.edgezo_refuse(first, _NONE if last is None else last, smallest)
    try:
        yield found
    finally:
        found.seen = library.edgezo_seen()
        library.edgezo_refuse(_NONE, -1, 0)
