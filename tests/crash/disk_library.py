"""A C library that writes down, or refuses, what a process does to the files of one folder.

It is loaded before the real one, so it sees what Python and every library do. The folder, and where
the log goes, are told by `watch`; `fail_from` lets the disk be full.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 4096
static char root[PATH_MAX];
static size_t root_length;
static int log_file = -1;
static char *paths[MOST];             /* of the descriptors inside the folder */
static long seen, fail_first = LONG_MAX, fail_last = -1;
static int fail_errno = ENOSPC, fail_short;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

void edgezo_watch(const char *folder, int descriptor) {
    root_length = folder ? strlen(folder) : 0;
    if (folder) strcpy(root, folder);
    log_file = descriptor;
}
void edgezo_fail(long from, long to, int code, int half) {
    seen = 0; fail_first = from; fail_last = to; fail_errno = code; fail_short = half;
}
long edgezo_operations(void) { return seen; }

static const char *inside(const char *path, char *buffer) {
    if (!root_length || !path) return NULL;
    if (path[0] != '/') {
        if (!getcwd(buffer, PATH_MAX)) return NULL;
        size_t used = strlen(buffer);
        snprintf(buffer + used, PATH_MAX - used, "/%s", path);
        path = buffer;
    }
    if (strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/'))
        return NULL;
    return path[root_length] ? path + root_length + 1 : "";
}
static const char *open_path(int fd) { return fd >= 0 && fd < MOST ? paths[fd] : NULL; }

/* kind u8 | path length u32 | other length u32 | offset i64 | size u64 | path | other | data */
static void put(char kind, const char *path, const char *other, int64_t offset,
                const void *data, uint64_t size) {
    if (log_file < 0) return;
    struct __attribute__((packed)) {
        char kind; uint32_t a, b; int64_t offset; uint64_t size;
    } head;
    head.kind = kind; head.a = strlen(path); head.b = other ? strlen(other) : 0;
    head.offset = offset; head.size = data ? size : 0;
    struct iovec parts[4] = {{&head, sizeof head}, {(void *) path, head.a},
                             {(void *) other, head.b}, {(void *) data, head.size}};
    syscall(SYS_writev, log_file, parts, 4);
}
/* Is this operation refused? */
static int refused(void) {
    long number = seen++;
    return number >= fail_first && number <= fail_last;
}
#define LOCKED(code) pthread_mutex_lock(&lock); code; pthread_mutex_unlock(&lock)

static int opened(int fd, const char *path, int flags, int existed) {
    char buffer[PATH_MAX];
    const char *name = inside(path, buffer);
    if (name && fd >= 0 && fd < MOST) {
        paths[fd] = strdup(name);
        if (!existed) put('c', name, NULL, 0, NULL, 0);
        else if (flags & O_TRUNC) put('t', name, NULL, 0, NULL, 0);
    }
    return fd;
}
static int open_any(int (*real)(int, const char *, int, ...), int dir, const char *path, int flags,
                    mode_t mode) {
    char buffer[PATH_MAX];
    struct stat found;
    if ((dir != AT_FDCWD && path[0] != '/') || !inside(path, buffer))
        return real(dir, path, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = !stat(path, &found), fd;
    int makes = (flags & O_CREAT) && !existed, cuts = existed && (flags & O_TRUNC) && found.st_size;
    if ((makes || cuts) && refused()) { errno = fail_errno; fd = -1; }
    else fd = opened(real(dir, path, flags, mode), path, flags, existed || !makes);
    pthread_mutex_unlock(&lock);
    return fd;
}
#define MODE mode_t mode = 0; if (flags & O_CREAT) { va_list rest; va_start(rest, flags); \
    mode = va_arg(rest, mode_t); va_end(rest); }
int openat(int dir, const char *path, int flags, ...) { MODE
    return open_any(REAL(openat), dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE
    return open_any(REAL(openat64), dir, path, flags, mode); }
int open(const char *path, int flags, ...) { MODE
    return open_any(REAL(openat), AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE
    return open_any(REAL(openat64), AT_FDCWD, path, flags, mode); }

int close(int fd) {
    LOCKED(if (open_path(fd)) paths[fd] = NULL);
    return REAL(close)(fd);
}
static ssize_t written(int fd, const void *data, size_t size, off_t offset, int at) {
    const char *path = open_path(fd);
    if (!path)
        return at ? REAL(pwrite)(fd, data, size, offset) : REAL(write)(fd, data, size);
    pthread_mutex_lock(&lock);
    ssize_t done;
    if (refused()) {
        if (!fail_short || size < 2) { pthread_mutex_unlock(&lock); errno = fail_errno; return -1; }
        size /= 2;
    }
    if (at) done = REAL(pwrite)(fd, data, size, offset);
    else {
        done = REAL(write)(fd, data, size);
        offset = lseek(fd, 0, SEEK_CUR) - (done > 0 ? done : 0);
    }
    if (done > 0) put('w', path, NULL, offset, data, done);
    pthread_mutex_unlock(&lock);
    return done;
}
ssize_t write(int fd, const void *data, size_t size) { return written(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return written(fd, data, size, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    return written(fd, data, size, at, 1); }
static ssize_t vector(int fd, const struct iovec *parts, int count, off_t at) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = written(fd, parts[i].iov_base, parts[i].iov_len, at + total, 1);
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t) done < parts[i].iov_len) break;
    }
    return total;
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return open_path(fd) ? vector(fd, parts, count, at) : REAL(pwritev)(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    return open_path(fd) ? vector(fd, parts, count, at) : REAL(pwritev64)(fd, parts, count, at); }
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return open_path(fd) ? vector(fd, parts, count, at)
                         : REAL(pwritev2)(fd, parts, count, at, flags); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t at, int flags) {
    return open_path(fd) ? vector(fd, parts, count, at)
                         : REAL(pwritev64v2)(fd, parts, count, at, flags); }

static int cut(int (*real)(int, off_t), int fd, off_t size) {
    const char *path = open_path(fd);
    if (!path) return real(fd, size);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (refused()) errno = fail_errno;
    else if (!(done = real(fd, size))) put('t', path, NULL, size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
int ftruncate(int fd, off_t size) { return cut(REAL(ftruncate), fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(REAL(ftruncate), fd, size); }

static int flushed(int (*real)(int), int fd) {
    const char *path = open_path(fd);
    if (!path) return real(fd);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (refused()) errno = fail_errno == ENOSPC ? EIO : fail_errno;
    else { put('s', path, NULL, 0, NULL, 0); done = 0; }  /* the tests pull no real plug */
    pthread_mutex_unlock(&lock);
    return done;
}
int fsync(int fd) { return flushed(REAL(fsync), fd); }
int fdatasync(int fd) { return flushed(REAL(fdatasync), fd); }

int rename(const char *old, const char *new) {
    char a[PATH_MAX], b[PATH_MAX];
    const char *from = inside(old, a), *to = inside(new, b);
    if (!from || !to) return REAL(rename)(old, new);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (refused()) errno = fail_errno;
    else if (!(done = REAL(rename)(old, new))) {
        put('r', from, to, 0, NULL, 0);
        for (int fd = 0; fd < MOST; fd++)
            if (paths[fd] && !strcmp(paths[fd], from)) paths[fd] = strdup(to);
    }
    pthread_mutex_unlock(&lock);
    return done;
}
int unlink(const char *path) {
    char buffer[PATH_MAX];
    const char *name = inside(path, buffer);
    if (!name) return REAL(unlink)(path);
    int done = REAL(unlink)(path);  /* works on a full disk */
    LOCKED(if (!done) put('u', name, NULL, 0, NULL, 0));
    return done;
}
int mkdir(const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = inside(path, buffer);
    if (!name) return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&lock);
    int done = -1;
    if (refused()) errno = fail_errno;
    else if (!(done = REAL(mkdir)(path, mode))) put('m', name, NULL, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return done;
}
"""

_HEAD = struct.Struct("<cIIqQ")


@dataclass(frozen=True, slots=True)
class Operation:
    """What was done to a file of the folder.

    Attributes:
        kind: "create", "write", "truncate", "sync", "rename", "unlink" or "mkdir".
        path: within the folder; "" for the folder itself.
        other: the new name of a renamed file.
        offset: where was written, or the size that was cut to.
        data: what was written.
    """

    kind: str
    path: str
    other: str = ""
    offset: int = 0
    data: bytes = b""


_KINDS = {
    b"c": "create", b"w": "write", b"t": "truncate", b"s": "sync", b"r": "rename", b"u": "unlink",
    b"m": "mkdir",
}  # fmt: skip


@contextmanager
def recording(folder: Path, log: Path) -> Iterator[None]:
    """Write down what this process, started with the library, does to the files of a folder."""
    library = ctypes.CDLL(None)
    with log.open("wb") as file:
        library.edgezo_watch(str(folder).encode(), file.fileno())
        try:
            yield
        finally:
            library.edgezo_watch(None, -1)


@dataclass(slots=True)
class Count:
    """How many operations there were."""

    operations: int = 0


@contextmanager
def failing(
    folder: Path, first: int, last: int, code: int, *, half: bool = False
) -> Iterator[Count]:
    """Let operations on the files of a folder fail.

    Args:
        folder: likewise.
        first: number of the first that fails, from 0.
        last: number of the last.
        code: the error's number.
        half: do writes take half of what they are given, in place of failing?
    """
    library = ctypes.CDLL(None)
    library.edgezo_fail.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    library.edgezo_operations.restype = ctypes.c_long
    count = Count()
    library.edgezo_watch(str(folder).encode(), -1)
    library.edgezo_fail(first, last, code, half)
    try:
        yield count
    finally:
        count.operations = library.edgezo_operations()
        library.edgezo_fail(2**62, -1, 0, 0)
        library.edgezo_watch(None, -1)


def read_log(log: Path) -> list[Operation]:
    """What was written down."""
    data, start, found = log.read_bytes(), 0, list[Operation]()
    while start < len(data):
        kind, first, second, offset, size = _HEAD.unpack_from(data, start)
        start += _HEAD.size
        path, other = data[start : start + first], data[start + first : start + first + second]
        start += first + second
        found.append(
            Operation(
                _KINDS[kind], path.decode(), other.decode(), offset, data[start : start + size]
            )
        )
        start += size
    return found
