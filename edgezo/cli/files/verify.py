"""Digests of a bundle's files, checked with progress."""

from __future__ import annotations

from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.system.sizes import format_size

_LONG_BYTES = 1 << 30
"""Bytes of a bundle whose check is worth a plain line; a terminal goes by the time it takes."""


def verify(bundle: Bundle, signals: StopSignals) -> None:
    """Check a bundle's digests, with progress.

    Raises:
        BundleError: a file was altered.
    """
    with Progress() as progress:
        show = progress.count(f"checking {bundle.root.name}", format_size)

        def tell(done: int, total: int) -> None:
            signals.check()
            if progress.live or total > _LONG_BYTES:
                show(done, total)

        bundle.verify(tell)
