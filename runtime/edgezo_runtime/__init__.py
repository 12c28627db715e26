"""Device side of edgezo: tune a bundle within a memory budget, and generate with the result."""

__all__: list[str] = []
