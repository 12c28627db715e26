"""Exported adapters in the programs they are for: what those score with the file, and without."""

__all__: list[str] = []
