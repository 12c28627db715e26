"""Errors of onnxruntime in the runtime's own words, and what the manifest says of a graph."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.bundle.manifest_types import TensorInfo
from edgezo_runtime.devices import library
from edgezo_runtime.devices.faults import ShortOfMemoryError
from edgezo_runtime.engine import sessions
from edgezo_runtime.engine.sessions import (
    SharedEnvironment,
    available_cores,
    check_ends,
    require_shape,
    run_graph,
)
from edgezo_runtime.errors import (
    BundleError,
    DeviceLostError,
    InterruptedRunError,
    MissingExtraError,
)


class Session:
    """Gives values, or raises."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def run_with_ort_values(self, outputs: Any, feed: Any, options: Any) -> Any:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def test_a_session_gives_a_list() -> None:
    session: Any = Session((1, 2))
    assert run_graph(session, ["a", "b"], {}) == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no"),
        RuntimeError("Failed to allocate memory for requested buffer of size 8"),
        RuntimeError("bfc: Available memory of 10 is smaller than requested bytes of 20"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error cudaErrorMemoryAllocation: out of memory"),
    ],
)
def test_refused_memory_is_told_from_other_errors(error: Exception) -> None:
    session: Any = Session(error)
    with pytest.raises(ShortOfMemoryError, match="onnxruntime was refused memory"):
        run_graph(session, ["a"], {})


@pytest.mark.parametrize("text", ["WebGPU device lost (2)", "VK_ERROR_DEVICE_LOST"])
def test_a_lost_device_is_told_from_other_errors(text: str) -> None:
    session: Any = Session(RuntimeError(text))
    with pytest.raises(DeviceLostError, match="the steps so far are saved"):
        run_graph(session, ["a"], {})


def test_other_errors_are_the_bundles() -> None:
    session: Any = Session(RuntimeError("Invalid rank for input"))
    with pytest.raises(BundleError, match=r"from hidden, key: Invalid rank.*edgezo export"):
        run_graph(session, ["hidden", "key"], {})


def test_a_result_of_another_shape_is_refused() -> None:
    value = SimpleNamespace(shape=lambda: [2, 3])
    require_shape(value, (2, 3), "scores")
    with pytest.raises(BundleError, match=r"made scores of shape \(2, 3\), expected \(3, 2\)"):
        require_shape(value, (3, 2), "scores")


def session_of(inputs: dict[str, str], outputs: dict[str, str]) -> Any:
    def ends(known: dict[str, str]) -> list[Any]:
        return [SimpleNamespace(name=name, type=kind) for name, kind in known.items()]

    return SimpleNamespace(get_inputs=lambda: ends(inputs), get_outputs=lambda: ends(outputs))


X, Y = TensorInfo("x", "float32", (2,)), TensorInfo("y", "int64", (2,))


def test_a_graph_that_is_as_the_manifest_says() -> None:
    session = session_of({"x": "tensor(float)"}, {"y": "tensor(int64)", "more": "tensor(float)"})
    check_ends(session, [X], [Y], "graph")


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({}, {"y": "tensor(int64)"}, "input 'x' .* is in the manifest only"),
        ({"x": "tensor(float)", "z": "tensor(bool)"}, {"y": "tensor(int64)"}, "'z' .* graph only"),
        ({"x": "tensor(float16)"}, {"y": "tensor(int64)"}, "input 'x' of type tensor"),
        ({"x": "tensor(float)"}, {}, "output 'y' .* is in the manifest only"),
    ],
)
def test_a_graph_that_is_not(inputs: Any, outputs: Any, message: str) -> None:
    with pytest.raises(BundleError, match=f"graph: .*{message}"):
        check_ends(session_of(inputs, outputs), [X], [Y], "graph")


def test_workers_live_until_the_last_user_releases_them() -> None:
    environment = SharedEnvironment()
    environment._registered = True  # the arena of the process is there already
    environment.prepare(2, None)
    environment.prepare(5, None)
    assert environment.threads == 2  # the first user's
    pool = environment.workers
    environment.release()
    assert environment.workers is pool
    assert pool.submit(lambda: 3).result() == 3
    environment.release()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(lambda: 3)


def test_nothing_begins_when_the_interpreter_ends() -> None:
    environment = SharedEnvironment()
    environment.require_time()
    environment.end()
    with pytest.raises(InterruptedRunError, match="the interpreter ends"):
        environment.require_time()


@pytest.mark.parametrize(
    ("version", "fused"), [("1.19.2", False), ("1.20.0", True), ("1.24.dev20250101", True)]
)
def test_the_first_release_with_an_empty_past(
    version: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library.import_onnxruntime(), "__version__", version)
    assert library.runs_fused_attention() == fused


def test_releases_that_are_too_old_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.import_onnxruntime(), "__version__", "1.18.1")
    with pytest.raises(MissingExtraError, match=r"1\.18\.1 cannot run the graphs"):
        library.import_onnxruntime()


def test_there_is_a_core() -> None:
    assert available_cores() >= 1


def test_a_graph_of_a_bundle_runs(bundle) -> None:
    """The prologue of a llama looks embeddings up: equal tokens have equal states."""
    from edgezo_runtime.engine.engine import Engine

    model = Engine(bundle).model
    ids = np.array([[5, 9, 5, 7]])
    feed = {"input_ids": model.value(ids)} | model.prologue.weights
    hidden = run_graph(model.prologue.session, ["hidden"], feed)[0].numpy()
    np.testing.assert_array_equal(hidden[0, 0], hidden[0, 2])
    assert (hidden[0, 0] != hidden[0, 1]).any()


def test_no_graph_is_opened_without_room(bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins `free(): invalid pointer` of onnxruntime under a limit on addresses."""
    file = bundle.manifest.graphs.prologue.file
    monkeypatch.setattr(sessions, "available_bytes", lambda: 8 << 20)
    with pytest.raises(ShortOfMemoryError, match="a graph cannot be opened"):
        SharedEnvironment().open(bundle, file)
