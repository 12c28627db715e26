"""Fuzz every parser: `python -m tests.hostile.fuzz [--executions N] [--target NAME,...]`.

Guided by coverage where atheris is installed (`pip install atheris`, Linux and macOS), by chance
alone where it is not. Each target is a process of its own, since what it reads may end it. The
first finding stops everything: its input is kept, and the command that repeats it is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import mmap
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.mutate import mutate

MOST_BYTES = 1 << 16
"""No input is longer."""

_WATCHED = 100
"""Executions, and seconds, between two looks whether one goes on for ever."""

SLOWEST_S, MOST_MIB = 60, 3072
"""What a single input may take; more is a finding."""


def main(arguments: list[str] | None = None) -> int:
    """Fuzz, or repeat an input; 1 where something was found."""
    parser = argparse.ArgumentParser(prog="tests.hostile.fuzz", description="Fuzz every parser.")
    parser.add_argument("--executions", type=int, default=20_000, help="over all targets")
    parser.add_argument("--target", default="", help="names with commas; all without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("build/findings"))
    parser.add_argument("--input", type=Path, help="run one target on this file, once")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.input is not None:
        return _repeat(given.target, given.input.read_bytes())
    if given.child:
        return _child(given.target, given.executions, given.seed, given.findings)
    return _fuzz_all(given.target, given.executions, given.seed, given.findings)


def guided() -> bool:
    """Is atheris installed?"""
    return importlib.util.find_spec("atheris") is not None


def _fuzz_all(names: str, executions: int, seed: int, findings: Path) -> int:
    from tests.hostile.targets import all_targets

    with all_targets() as targets:
        shares = {name: target.share for name, target in targets.items()}
    chosen = [name for name in names.split(",") if name] or list(shares)
    if unknown := [name for name in chosen if name not in shares]:
        sys.exit(f"no target {', '.join(unknown)}; there are {', '.join(shares)}")
    whole = sum(shares[name] for name in chosen)
    findings.mkdir(parents=True, exist_ok=True)
    print("guided by coverage (atheris)" if guided() else "by chance (atheris is not installed)")
    done, begun = 0, time.monotonic()
    for name in chosen:
        wanted = round(executions * shares[name] / whole)
        count, seconds, found = _run_child(name, wanted, seed, findings)
        done += count
        print(
            f"{name:12} {count:>9} executions {seconds:8.1f} s {count / seconds:9.0f}/s", flush=True
        )
        if found is not None:
            print(f"finding in {name}: {found}")
            print(f"repeat it: python -m tests.hostile.fuzz --target {name} --input {found}")
            return 1
    seconds = time.monotonic() - begun
    print(f"{'all':12} {done:>9} executions {seconds:8.1f} s, nothing found")
    return 0


def _run_child(
    name: str, executions: int, seed: int, findings: Path
) -> tuple[int, float, Path | None]:
    """Fuzz a target in a process of its own: executions, seconds, and the input that was found."""
    before = set(findings.iterdir())
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.hostile.fuzz", "--child", "--target", name]
    command += ["--executions", str(executions), "--seed", str(seed), "--findings", str(findings)]
    environment = {**os.environ, "RUST_BACKTRACE": "0", "OMP_NUM_THREADS": "1"}
    shared = Path("/dev/shm")
    with (
        tempfile.TemporaryFile("w+") as log,
        # Of this process, which outlives what the target does: in memory, where there is such.
        tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder,
    ):
        environment["TMPDIR"] = folder
        ended = subprocess.run(command, stderr=log, stdout=log, env=environment, check=False)
        log.seek(0)
        text = log.read()
    seconds = time.monotonic() - begun
    counted = re.findall(r"(?:number_of_executed_units: +|executions |^#)([0-9]+)", text, re.M)
    count = int(counted[-1]) if counted else 0
    new = [path for path in sorted(set(findings.iterdir()) - before) if path.is_file()]
    if ended.returncode == 0 and not new:
        return count, seconds, None
    for path in new:
        if path.name == f"{name}-{seed}.input":
            _unwrap(path)
    log_file = findings / f"{name}.log"
    log_file.write_text(text[-100_000:], encoding="utf-8")
    print(f"{name} ended with {ended.returncode}; its last words are in {log_file}")
    print("\n".join(text.splitlines()[-25:]))
    return count, seconds, new[0] if new else log_file


def _child(name: str, executions: int, seed: int, findings: Path) -> int:
    if guided():
        return _guided_child(name, executions, seed, findings)
    from tests.hostile.targets import all_targets, execute

    rng = random.Random(f"{seed} {name}")
    current = findings / f"{name}-{seed}.input"
    with all_targets() as targets, current.open("w+b") as file:
        file.truncate(8 + MOST_BYTES)
        # A map outlives the process, which may not live to keep what ended it.
        with mmap.mmap(file.fileno(), 8 + MOST_BYTES, access=mmap.ACCESS_WRITE) as kept:
            target = targets[name]
            for number in range(executions):
                data = mutate(target.seeds, rng)[:MOST_BYTES]
                kept[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
                if number % _WATCHED == 0:
                    faulthandler.dump_traceback_later(SLOWEST_S + _WATCHED, exit=True)
                    print(f"executions {number}", flush=True)
                execute(target, data)
            faulthandler.cancel_dump_traceback_later()
            print(f"executions {executions}")
    current.unlink()
    return 0


def _unwrap(path: Path) -> None:
    """Leave of a map that outlived its process the input."""
    content = path.read_bytes()
    path.write_bytes(content[8 : 8 + int.from_bytes(content[:8], "little")])


def _guided_child(name: str, executions: int, seed: int, findings: Path) -> int:
    import atheris  # type: ignore[import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["edgezo", "edgezo_runtime"]):
        from tests.hostile.targets import all_targets, execute

    with contextlib.ExitStack() as stack:
        target = stack.enter_context(all_targets())[name]
        corpus = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rng = random.Random(f"{seed} {name}")
        for number, data in enumerate(target.seeds):
            (corpus / str(number)).write_bytes(data)

        def run(data: bytes) -> None:
            execute(target, data)

        def change(data: bytes, most: int, number: int) -> bytes:
            if number % 2:
                changed: bytes = atheris.Mutate(data, most)
                return changed
            return mutate([data, rng.choice(target.seeds)], random.Random(number))[:most]

        options = [
            f"-runs={executions}",
            f"-seed={seed + 1}",  # 0 is a seed by the clock there
            f"-max_len={MOST_BYTES}",
            f"-timeout={SLOWEST_S}",
            f"-rss_limit_mb={MOST_MIB}",
            f"-artifact_prefix={findings}/{name}-",
            "-print_final_stats=1",
            str(corpus),
        ]
        atheris.Setup([sys.argv[0], *options], run, custom_mutator=change)
        atheris.Fuzz()
    return 0


def _repeat(name: str, data: bytes) -> int:
    from tests.hostile.targets import all_targets, execute

    with all_targets() as targets:
        taken = execute(targets[name], data)
    print("taken" if taken else "refused as it should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())
