"""Digests of a bundle's files: checked once, and again when a file changes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time

import pytest

from edgezo_runtime.bundle import digests
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.digests import check_digest, check_size, is_verified
from edgezo_runtime.bundle.manifest_types import FileInfo
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.files import sha256_file
from tests.runtime.tiny_bundle import FILES


def settle(root):
    """Let the files be older than the clock of the disk is coarse."""
    for name in Bundle.open(root).manifest.files:
        os.utime(root / name, (1, 1))
    time.sleep(0.15)


def test_files_are_found_right_once_and_again_when_they_change(root, monkeypatch):
    settle(root)
    read = []
    monkeypatch.setattr(
        digests,
        "sha256_file",
        lambda path, tell=None: (read.append(path.name), sha256_file(path))[1],
    )
    Bundle.open(root).verify_once()
    files = len(Bundle.open(root).manifest.files)
    assert len(read) == files
    Bundle.open(root).verify_once()
    assert len(read) == files
    path = root / sorted(FILES)[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(2):
        with pytest.raises(BundleError, match="sha256"):
            Bundle.open(root).verify_once()
    Bundle.open(root, verify=False).verify_once()


def test_what_has_just_changed_is_not_believed_for_its_times(root):
    """A change within a tick of the disk's clock leaves size and times as they were."""
    path = root / sorted(FILES)[0]
    content = path.read_bytes()
    path.write_bytes(content)
    Bundle.open(root).verify_once()
    assert not [key for key in digests._VERIFIED if key[0] == path.resolve()]


def test_size_and_digest_are_compared(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    right = FileInfo(3, hashlib.sha256(b"abc").hexdigest())
    seen = []
    check_digest(path, "f", right, seen.append)
    assert sum(seen) == 3
    with pytest.raises(BundleError, match="'f': 4 bytes in the manifest, 3 on disk"):
        check_size(path, "f", dataclasses.replace(right, bytes=4))
    wrong = dataclasses.replace(right, sha256="0" * 64)
    with pytest.raises(BundleError, match="sha256 000000000000 in the manifest"):
        check_digest(path, "f", wrong)
    os.utime(path, (1, 1))
    time.sleep(0.15)
    check_digest(path, "f", right)
    assert is_verified(path, right)
    assert not is_verified(path, wrong)
