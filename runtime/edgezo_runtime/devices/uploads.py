"""What GPUs have in common: values that are copied there, and sessions that leave results there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSet, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.devices.device import Pages
from edgezo_runtime.devices.faults import ShortOfDeviceError
from edgezo_runtime.devices.ledger import WEIGHTS, Ledger

Put = Callable[[npt.NDArray[Any], str], Any]
"""Copies an array to the device; the words name it where there is no room."""


class UploadedWeights:
    """Weights of one graph, copied to a device when they are needed and until they are dropped.

    Args:
        views: of the mapped file, by input.
        pages: where they lie in it; read ahead before they are copied, dropped afterwards.
        put: copies one to the device.
        waiting: weights of the device that came ahead and were not used yet.
        ahead: copies while the device computes: on a thread, or here where copies are queued behind
            the work that was handed in.
    """

    def __init__(
        self,
        views: Mapping[str, npt.NDArray[Any]],
        pages: Pages,
        put: Put,
        waiting: MutableSet[UploadedWeights],
        ahead: Callable[[Callable[[], None]], Future[None]],
    ) -> None:
        self._views = views
        self._pages = pages
        self._put = put
        self._waiting = waiting
        self._ahead = ahead
        self._values: dict[str, Any] | None = None
        self._coming: Future[None] | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes on the device."""
        return sum(view.nbytes for view in self._views.values())

    @property
    def values(self) -> Mapping[str, Any]:
        """OrtValues by input, on the device.

        Raises:
            ShortOfDeviceError: there is no room for them.
        """
        coming, self._coming = self._coming, None
        self._waiting.discard(self)
        if coming is not None:
            coming.exception()  # there may be room only now that others were dropped
        if self._values is None:
            try:
                self._upload()
            except ShortOfDeviceError:
                if not self._waiting:
                    raise
                for other in list(self._waiting):  # these are needed later
                    other.drop()
                self._upload()
        assert self._values is not None
        return self._values

    def _upload(self) -> None:
        made: dict[str, Any] = {}
        try:
            for name, view in self._views.items():
                made[name] = self._put(view, WEIGHTS)
        except BaseException:
            made.clear()  # the error's traceback would keep what was copied
            raise
        self._values = made
        self._pages.drop()  # the copy serves from now on

    def fetch(self) -> None:
        """Copy them while the device computes."""
        if self._values is None and self._coming is None:
            self._waiting.add(self)
            self._coming = self._ahead(self._upload)

    def drop(self) -> None:
        """Release them; they are copied again when they are needed."""
        coming, self._coming = self._coming, None
        self._waiting.discard(self)
        if coming is not None:
            coming.exception()  # it has ended
        self._values = None


class BoundSession:
    """A session whose results stay on a device.

    Args:
        session: of onnxruntime.
        place: name of the device for onnxruntime.
        ledger: of the device.
    """

    def __init__(self, session: Any, place: str, ledger: Ledger) -> None:
        self._session = session
        self._place = place
        self._ledger = ledger

    def get_inputs(self) -> Sequence[Any]:
        """What it takes."""
        inputs: Sequence[Any] = self._session.get_inputs()
        return inputs

    def get_outputs(self) -> Sequence[Any]:
        """What it makes."""
        outputs: Sequence[Any] = self._session.get_outputs()
        return outputs

    def run_with_ort_values(
        self, outputs: Sequence[str], feed: Mapping[str, Any], options: Any = None
    ) -> Sequence[Any]:
        """Run it on values of the device; the results are counted, and stay there."""
        binding = self._session.io_binding()
        for name, value in feed.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, self._place, 0)
        self._session.run_with_iobinding(binding, options)
        made: Sequence[Any] = binding.get_outputs()
        for name, value in zip(outputs, made, strict=True):
            size = value.tensor_size_in_bytes()
            what = f"result {name!r}"
            self._ledger.take(size, what)
            self._ledger.follow(value, size, what)
        return made


def put_counted(
    array: npt.NDArray[Any], what: str, copy: Callable[[npt.NDArray[Any]], Any], ledger: Ledger
) -> Any:
    """Copy an array to a device, and count it there until the value is collected.

    Raises:
        ShortOfDeviceError: there is no room for it.
    """
    own = np.ascontiguousarray(array)
    ledger.take(own.nbytes, what)
    try:
        value = copy(own)
    except BaseException:
        ledger.give(own.nbytes, what)
        raise
    ledger.follow(value, own.nbytes, what)
    ledger.sent(own.nbytes)
    return value
