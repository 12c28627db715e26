"""A reward from a Python file that the user names: FILE.py:FUNCTION."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path

from edgezo_runtime.errors import UsageError
from edgezo_runtime.evaluation.objectives import Reward

_MODULE = "edgezo_reward"


def load_reward(spec: str) -> Reward:
    """Load a function.

    The function always comes from the command line, never from a file of settings or a run folder:
    resuming a run must not execute code that came with it.

    Args:
        spec: FILE.py:FUNCTION.
    Raises:
        UsageError: the file or the function is missing, or the file raises.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not file or not name.isidentifier():
        raise UsageError(f"--reward {spec}: expected FILE.py:FUNCTION")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--reward {path}: cannot be read: {error.strerror}") from error
    if path.suffix != ".py":
        raise UsageError(f"--reward {path}: not a Python file; name a file that ends in .py")
    module = types.ModuleType(_MODULE)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module  # dataclasses and others look up their module
    try:  # compile the bytes that the digest is of, not a cached bytecode file
        exec(compile(content, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:  # whatever the user's file raises
        raise UsageError(f"--reward {path}: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"--reward {path}: has no function {name!r}")
    digest = hashlib.sha256(content).hexdigest()[:16]
    return Reward(f"{path.name}:{name} sha256:{digest}", function)
