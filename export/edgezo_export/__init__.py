"""Workstation side of edgezo: turn a Hugging Face model into a bundle that a device can tune.

It owns everything that needs torch, transformers or onnx. It must not know the command line, and
knows of the runtime only the formats and the readers of their files.
"""

__all__: list[str] = []
