"""The folder of a run and its lock."""

import errno
import os
import shlex
from pathlib import Path

import pytest

from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.journal.run_folder import RunFolder, find_adapter


def test_the_folder_is_made_when_it_is_taken(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "a" / "b")
    assert not run.path.exists()
    run.acquire()
    assert run.path.is_dir()
    assert not run.has_journal()
    run.journal.touch()
    assert run.has_journal()
    run.release()


def test_every_file_is_inside_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    names = ("journal", "snapshot", "config", "metrics", "adapter", "receipt", "cache")
    paths = [getattr(run, name) for name in names]
    assert all(path.parent == tmp_path for path in paths)
    assert len({*paths, tmp_path / "lock"}) == len(names) + 1


def test_a_second_opener_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.acquire()
    first.acquire()  # its own lock
    for _ in range(2):
        with pytest.raises(UsageError, match="this process is tuning in this folder; wait until"):
            second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


@pytest.mark.parametrize("content", ["", "1", "not a number"])
def test_a_lock_file_left_behind_locks_nobody_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    run = RunFolder(tmp_path)
    run.acquire()
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    run.release()


def test_one_tuner_at_a_time(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.acquire()
    run.take()
    with pytest.raises(UsageError, match="another tuner of this process has it"):
        run.take()
    run.release()
    run.take()
    run.release()


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("edgezo_runtime.journal.run_folder.lock", refuse)
    with pytest.raises(UsageError, match=r"file system cannot lock files .No locks available"):
        RunFolder(tmp_path).acquire()


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UsageError, match=r"for a run: .*another `output`"):
            RunFolder(path).acquire()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_keeps_no_lock(tmp_path: Path) -> None:
    """Pins a folder that stayed locked as long as a child of the process that had it."""
    run = RunFolder(tmp_path)
    run.acquire()
    (waiting, end), (ready, begun) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover
        os.close(end)
        os.write(begun, b"!")
        os.read(waiting, 1)
        os._exit(0)
    os.read(ready, 1)
    with pytest.raises(UsageError, match="this process is tuning"):
        RunFolder(tmp_path).acquire()  # the child has not let go what is the parent's
    os.close(run._lock)  # as the end of the process would
    other = RunFolder(tmp_path)
    other.acquire()
    other.release()
    run._lock = -1
    os.close(end)
    os.waitpid(child, 0)
    for descriptor in (waiting, ready, begun):
        os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_released_lock_is_free_whoever_has_the_file_open(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.acquire()
    copy = os.dup(run._lock)
    run.release()
    run.acquire()
    run.release()
    os.close(copy)


def test_readers_ask_for_the_lock_and_do_not_hinder(tmp_path: Path) -> None:
    """Whoever lists runs must not make one that begins fail, nor see another reader as a run."""
    owner, reader = RunFolder(tmp_path), RunFolder(tmp_path)
    assert not reader.in_use()
    owner.acquire()
    assert reader.in_use()
    assert owner.in_use()
    owner.release()
    assert not reader.in_use()
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    if os.name == "posix":
        import fcntl

        with (tmp_path / "lock").open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_SH)
            assert not reader.in_use()


def test_the_command_that_finishes_a_run_can_be_pasted(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "it's my run")
    run.acquire()
    run.journal.touch()
    with pytest.raises(RunFileError, match="to finish it: ") as found:
        find_adapter(run.path)
    command = str(found.value).split("to finish it: ")[1]
    assert shlex.split(command) == ["edgezo", "tune", "--resume", "-o", str(run.path)]
    run.release()
