"""Digests of a bundle's files, checked with progress."""

from __future__ import annotations

from edgezo.cli.terminal.progress import Progress
from edgezo.cli.terminal.stop_signals import StopSignals
from edgezo_runtime.bundle.bundle import Bundle


def verify(bundle: Bundle, signals: StopSignals) -> None:
    """Check a bundle's digests, with progress.

    Raises:
        BundleError: a file was altered.
    """
    with Progress() as progress:

        def tell(done: int, total: int) -> None:
            signals.check()
            if progress.due() and total > 1 << 30:
                progress.update(f"checking {bundle.root} {100 * done // total}%")

        bundle.verify(tell)
