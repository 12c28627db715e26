"""Device side of edgezo: tune a bundle within a memory budget.

It owns the formats of bundles, runs and adapters, and everything that runs on a device. It must not
know torch, transformers, the exporter or the command line.
"""

__all__: list[str] = []
