"""NVIDIA GPUs by CUDA, where the installed onnxruntime has that provider."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from edgezo_runtime.devices.gpu import Gpu, GpuFacts
from edgezo_runtime.devices.gpu_memory import NVIDIA, gpu_total_bytes
from edgezo_runtime.devices.library import import_onnxruntime
from edgezo_runtime.errors import MissingExtraError

PROVIDER = "CUDAExecutionProvider"

_SETTINGS = {
    # Grow by what was asked for: the default doubles, and the ledger would not know.
    "arena_extend_strategy": "kSameAsRequested",
    # Finite differences need products in float32, not in TF32 with its 10 bits.
    "use_tf32": "0",
}


def open_cuda() -> Gpu:
    """Find the first GPU that CUDA drives.

    That the provider is listed does not mean that it has code for the GPU; see `self_test`.

    Raises:
        MissingExtraError: the installed onnxruntime has no such provider.
    """
    ort = import_onnxruntime()
    if PROVIDER not in ort.get_available_providers():
        raise MissingExtraError(
            "the installed onnxruntime has no CUDA; uninstall it, then run "
            "pip install 'edgezo[cuda]'"
        )
    uploader = ThreadPoolExecutor(1, thread_name_prefix="edgezo-upload")

    def ahead(upload: Callable[[], None]) -> Future[None]:
        return uploader.submit(upload)

    facts = GpuFacts("NVIDIA GPU", gpu_total_bytes(NVIDIA), float16=True)
    providers = [(PROVIDER, _SETTINGS), "CPUExecutionProvider"]
    return Gpu("cuda", PROVIDER, facts, ort, lambda options: None, providers, ahead)
