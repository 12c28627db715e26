"""Device side of edgezo: tune a bundle within a memory budget."""

__all__: list[str] = []
