"""What goes wrong on devices, told from the texts of onnxruntime's errors."""

from __future__ import annotations

_REFUSED = (
    "Available memory of",
    "bad_alloc",
    "Failed to allocate memory",
    "BFCArena",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "cudaErrorMemoryAllocation",
    "out of memory",
    "Out of memory",
    "Failed to create buffer",
)
"""Parts of onnxruntime's errors when the arena's limit, the system or a device refused memory."""

_LOST = (
    "evice lost",
    "evice is lost",
    "evice was lost",
    "DeviceLost",
    "DEVICE_LOST",
    "cudaErrorDevicesUnavailable",
    "unspecified launch failure",
)
"""Parts of its errors when a device is gone: a driver that was reset, a card that was pulled."""


class ShortOfMemoryError(MemoryError):
    """A pass needs more memory than there is; it can be run again in smaller chunks."""


class ShortOfDeviceError(ShortOfMemoryError):
    """The memory of a GPU is short; blocks that are streamed need less of it."""


def is_refusal(error: BaseException) -> bool:
    """Was memory refused?"""
    return isinstance(error, MemoryError) or any(text in str(error) for text in _REFUSED)


def is_loss(error: BaseException) -> bool:
    """Is the device gone?"""
    return any(text in str(error) for text in _LOST)
