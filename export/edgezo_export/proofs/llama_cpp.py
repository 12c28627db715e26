"""Scores of llama.cpp with a LoRA file, through llama-cpp-python."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.errors import EdgezoError, MissingExtraError
from edgezo_runtime.evaluation.parity import Sample, Scores, last_logits

Float32 = npt.NDArray[np.float32]

_F32 = 0
_ERRORS = 4
"""Level of error messages in ggml."""


def llama_cpp_scores(model: Path, adapter: Path, sample: Sample) -> Scores:
    """Score a model with an adapter, and without it.

    An adapter that acts on answers is enabled before the last token, as by llama.cpp's server.

    Args:
        model: .gguf file of the base model.
        adapter: .gguf file of the adapter.
        sample: the rows.
    Raises:
        MissingExtraError: llama-cpp-python is not installed.
        EdgezoError: llama.cpp refuses the files.
    """
    try:
        library = import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(
            "llama-cpp-python is not installed; run pip install llama-cpp-python"
        ) from error
    with _opened(library, model, max(map(len, sample.rows))) as session:
        plain = session.logits(sample)
        session.load(adapter)
        return Scores(session.logits(sample), plain)


class _Session:
    """A model and its context.

    Args:
        library: the module llama_cpp.
        model: a llama_model.
        context: a llama_context of it.
    """

    def __init__(self, library: Any, model: Any, context: Any) -> None:
        self._library = library
        self._model = model
        self._context = context
        self._adapter: Any = None

    def load(self, path: Path) -> None:
        """Load an adapter.

        Raises:
            EdgezoError: llama.cpp refuses it.
        """
        self._adapter = self._library.llama_adapter_lora_init(self._model, str(path).encode())
        if not self._adapter:
            raise EdgezoError(f"{path}: llama.cpp does not load it")

    def logits(self, sample: Sample) -> Float32:
        """Score the rows, (rows, labels)."""
        found: list[Float32] = []
        for row in sample.rows:
            self._clear()
            if self._adapter and sample.answers:
                self._use(on=False)
                self._decode(row[:-1])
                self._use(on=True)
                found.append(self._decode(row[-1:]))
            else:
                self._use(on=self._adapter is not None)
                found.append(self._decode(row))
        return last_logits(found, sample)

    def _clear(self) -> None:
        library = self._library
        if hasattr(library, "llama_memory_clear"):
            library.llama_memory_clear(library.llama_get_memory(self._context), True)
        else:
            library.llama_kv_self_clear(self._context)

    def _use(self, *, on: bool) -> None:
        library = self._library
        if not hasattr(library, "llama_set_adapters_lora"):  # versions of 2025
            if on:
                library.llama_set_adapter_lora(self._context, self._adapter, 1.0)
            else:
                library.llama_clear_adapter_lora(self._context)
        elif on:
            adapters = (library.llama_adapter_lora_p_ctypes * 1)(self._adapter)
            library.llama_set_adapters_lora(self._context, adapters, 1, (ctypes.c_float * 1)(1.0))
        else:
            library.llama_set_adapters_lora(self._context, None, 0, None)

    def _decode(self, tokens: npt.NDArray[np.int32]) -> Float32:
        """Return the logits after the last token, (V,)."""
        library = self._library
        values = (library.llama_token * len(tokens))(*tokens.tolist())
        failed = library.llama_decode(
            self._context, library.llama_batch_get_one(values, len(tokens))
        )
        if failed:
            raise EdgezoError(f"llama.cpp cannot evaluate a row: code {failed}")
        vocabulary = library.llama_model_get_vocab(self._model)
        size = library.llama_vocab_n_tokens(vocabulary)
        logits = library.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(logits, (size,)).copy()


@contextlib.contextmanager
def _opened(library: Any, path: Path, tokens: int) -> Iterator[_Session]:
    """Open a model, with keys and values in float32, for rows of so many tokens.

    Raises:
        EdgezoError: llama.cpp refuses the model.
    """
    quiet = library.llama_log_callback(_tell_nothing)
    library.llama_log_set(quiet, ctypes.c_void_p(0))
    library.llama_backend_init()
    model = library.llama_model_load_from_file(
        str(path).encode(), library.llama_model_default_params()
    )
    if not model:
        raise EdgezoError(f"{path}: llama.cpp does not load this model")
    try:
        settings = library.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = max(64, tokens)
        settings.type_k = settings.type_v = _F32
        # threads busy-wait for each other, for minutes while other processes run
        settings.n_threads = settings.n_threads_batch = 1
        context = library.llama_init_from_model(model, settings)
        if not context:
            raise EdgezoError(f"{path}: llama.cpp cannot allocate a context of {tokens} tokens")
        try:
            yield _Session(library, model, context)
        finally:
            library.llama_free(context)
    finally:
        library.llama_model_free(model)


def _tell_nothing(level: int, text: bytes, data: Any) -> None:
    """Discard a message of llama.cpp."""
