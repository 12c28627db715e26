"""Fine-tune language models on the device that runs them, with forward passes only.

Public names are loaded at first use, so ``import edgezo`` costs nothing:

    from edgezo import Tuner
"""

from importlib import import_module
from typing import Any

from edgezo._version import __version__

__all__ = ["Tuner", "__version__"]

_HOMES = {"Tuner": "edgezo_runtime.tuner"}


def __getattr__(name: str) -> Any:
    """Load the public name from the module that owns it (PEP 562).

    Raises:
        AttributeError: edgezo has no such public name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'edgezo' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
