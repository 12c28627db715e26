"""llama.cpp through a library that answers as llama-cpp-python does."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgezo_export.proofs import llama_cpp
from edgezo_runtime.errors import EdgezoError, MissingExtraError
from edgezo_runtime.evaluation.parity import Sample

ROWS = (np.array([3, 4, 5], np.int32), np.array([6, 7], np.int32))


class Library(SimpleNamespace):
    """Logits of token t are t + v, and 100 more with an adapter."""

    llama_token = ctypes.c_int32

    def __init__(self, **changes: object) -> None:
        super().__init__(calls=[], on=False, last=0)
        self.llama_log_callback = lambda function: function
        self.llama_log_set = lambda callback, data: None
        self.llama_backend_init = lambda: None
        self.llama_model_default_params = self.llama_context_default_params = SimpleNamespace
        self.llama_model_load_from_file = lambda path, params: "model"
        self.llama_init_from_model = lambda model, settings: "context"
        self.llama_free = lambda context: self.calls.append("free context")
        self.llama_model_free = lambda model: self.calls.append("free model")
        self.llama_adapter_lora_init = lambda model, path: "adapter"
        self.llama_kv_self_clear = lambda context: self.calls.append("clear")
        self.llama_set_adapter_lora = lambda context, adapter, scale: self.switch(True)
        self.llama_clear_adapter_lora = lambda context: self.switch(False)
        self.llama_batch_get_one = lambda values, count: list(values)
        self.llama_model_get_vocab = lambda model: "vocabulary"
        self.llama_vocab_n_tokens = lambda vocabulary: 10
        self.__dict__.update(changes)

    def switch(self, on: bool) -> None:
        self.on = on

    def llama_decode(self, context: str, batch: list[int]) -> int:
        self.calls.append((tuple(batch), self.on))
        self.last = batch[-1]
        return 0

    def llama_get_logits_ith(self, context: str, index: int):
        values = [float(self.last + v + 100 * self.on) for v in range(10)]
        self.kept = (ctypes.c_float * 10)(*values)
        return ctypes.cast(self.kept, ctypes.POINTER(ctypes.c_float))


def scores(monkeypatch, library: Library, scope: str = "all"):
    monkeypatch.setattr(llama_cpp, "import_module", lambda name: library)
    sample = Sample(ROWS, (1, 2), scope)
    return llama_cpp.llama_cpp_scores(Path("m.gguf"), Path("a.gguf"), sample)


def test_scores_with_and_without_the_adapter(monkeypatch):
    library = Library()
    found = scores(monkeypatch, library)
    np.testing.assert_array_equal(found.plain, [[6, 7], [8, 9]])
    np.testing.assert_array_equal(found.tuned, found.plain + 100)
    assert library.calls[-2:] == ["free context", "free model"]


def test_an_adapter_on_answers_acts_on_the_last_token_only(monkeypatch):
    library = Library()
    scores(monkeypatch, library, "answer")
    decoded = [call for call in library.calls if isinstance(call, tuple)]
    assert decoded[2:] == [((3, 4), False), ((5,), True), ((6,), False), ((7,), True)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama_model_load_from_file": lambda path, params: None}, "m.gguf: .* this model"),
        ({"llama_init_from_model": lambda model, settings: None}, "a context of 64 tokens|3 tok"),
        ({"llama_adapter_lora_init": lambda model, path: None}, "a.gguf: llama.cpp does not load"),
        ({"llama_decode": lambda context, batch: 1}, "cannot evaluate a row: code 1"),
    ],
)
def test_refusals_of_llama_cpp(monkeypatch, changes, message):
    with pytest.raises(EdgezoError, match=message):
        scores(monkeypatch, Library(**changes))


def test_a_library_that_is_not_installed(monkeypatch):
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(llama_cpp, "import_module", absent)
    with pytest.raises(MissingExtraError, match="pip install llama-cpp-python"):
        llama_cpp.llama_cpp_scores(Path("m"), Path("a"), Sample(ROWS, (1, 2), "all"))
