"""Chooses the device of a run, once; the same name gives the same device within a process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgezo_runtime.devices.cpu import CPU
from edgezo_runtime.devices.cuda import open_cuda
from edgezo_runtime.devices.device import Device
from edgezo_runtime.devices.gpu import Gpu
from edgezo_runtime.devices.self_test import SelfTest, self_test
from edgezo_runtime.devices.webgpu import open_webgpu
from edgezo_runtime.errors import EdgezoError, UsageError

Wanted = Literal["auto", "cpu", "gpu", "webgpu", "cuda"]

_GPUS: dict[str, Callable[[], Gpu]] = {"cuda": open_cuda, "webgpu": open_webgpu}
"""The ways to a GPU, the preferred one first."""


@dataclass(frozen=True, slots=True)
class Found:
    """A way to a GPU that was tried.

    Attributes:
        name: of the way.
        gpu: the GPU; None if there is none.
        test: what its self-test found; None if there is no GPU.
        problem: why it cannot be used; empty if it can.
    """

    name: str
    gpu: Gpu | None
    test: SelfTest | None
    problem: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The device of a run.

    Attributes:
        device: what runs the graphs.
        reason: why it was taken, for people.
    """

    device: Device
    reason: str


def choose_device(wanted: Wanted) -> Chosen:
    """Choose a device.

    auto   the fastest one that passes its self-test; never a software adapter
    gpu    the same without the processor

    Raises:
        UsageError: there is no such device, or it fails its self-test.
        MissingExtraError: its provider is not installed.
    """
    if wanted == "cpu":
        return Chosen(CPU, "as asked for")
    if wanted in _GPUS:
        return Chosen(_tested(_opened(wanted)), "as asked for")
    found = look_everywhere()
    passed = [
        (one.gpu, one.test)
        for one in found
        if one.gpu is not None and one.test is not None and not one.problem
    ]
    able = [(gpu, test) for gpu, test in passed if not gpu.facts.is_software]
    if wanted == "gpu":
        if not (able or passed):
            told = "; ".join(f"{one.name}: {one.problem}" for one in found)
            raise UsageError(f"`device` gpu: no GPU can be used ({told}); set `device` to cpu")
        gpu, test = min(able or passed, key=lambda pair: pair[1].seconds)
        return Chosen(gpu, f"the fastest GPU: {test.told()}")
    faster = [(gpu, test) for gpu, test in able if test.seconds < test.cpu_seconds]
    if not faster:
        told = "; ".join(
            f"{one.name}: {one.problem or 'a software adapter, or slower than the processor'}"
            for one in found
        )
        return Chosen(CPU, f"no faster GPU ({told})")
    gpu, test = min(faster, key=lambda pair: pair[1].seconds)
    return Chosen(gpu, f"the fastest that passes its self-test: {test.told()}")


def look_everywhere() -> list[Found]:
    """Look for GPUs by every way, and test them."""
    return [look(name) for name in _GPUS]


@functools.cache
def look(name: str) -> Found:
    """Look for a GPU by one way, and test it."""
    try:
        gpu = _opened(name)
    except EdgezoError as error:
        return Found(name, None, None, str(error))
    test = self_test(gpu)
    return Found(name, gpu, test, test.problem)


@functools.cache
def _opened(name: str) -> Gpu:
    return _GPUS[name]()


def _tested(gpu: Gpu) -> Gpu:
    """Refuse a GPU that computes something else than the processor.

    Raises:
        UsageError: it does.
    """
    if problem := look(gpu.name).problem:
        raise UsageError(f"`device` {gpu.name}: {problem}; set `device` to cpu")
    return gpu
