"""Workstation side of edgezo: turn a Hugging Face model into a bundle that a device can tune."""

__all__: list[str] = []
