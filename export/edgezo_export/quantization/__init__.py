"""8-bit weights: quantization, rotation, and the weights file of a bundle.

It knows checkpoints as tensors by name. It must not know graphs or what a tensor is used for.
"""

__all__: list[str] = []
