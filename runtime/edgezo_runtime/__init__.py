"""Device side of edgezo: tune a bundle with forward passes only, inside a memory budget."""

__all__: list[str] = []
