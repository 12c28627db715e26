"""Calls of a tuner in a fork of its process: every one of them is refused there."""

from __future__ import annotations

from collections.abc import Callable

from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.errors import UsageError
from tests.runtime.app_runs import ROWS

FORK_OF_TUNER = "cannot be used in a fork"
"""Said of a tuner that a fork has inherited."""

FORK_OF_USER = "this process was forked after onnxruntime had started its threads"
"""Said where a fork opens a tuner of its own."""

CALLS: dict[str, Callable[[Tuner], object]] = {
    "adapter": lambda tuner: tuner.adapter(),
    "add": lambda tuner: tuner.add(ROWS[:1]),
    "cancel": lambda tuner: tuner.cancel(),
    "classify": lambda tuner: tuner.classify("w1 w2"),
    "classify_all": lambda tuner: tuner.classify_all(["w1 w2"]),
    "evaluate": lambda tuner: tuner.evaluate(ROWS[:2]),
    "events": lambda tuner: tuner.events(),
    "generate": lambda tuner: tuner.generate("w1 w2"),
    "kept_adapter": lambda tuner: tuner.kept_adapter(),
    "listen": lambda tuner: tuner.listen(print),
    "pause": lambda tuner: tuner.pause(),
    "pause and wait": lambda tuner: tuner.pause(wait=True),
    "paused": lambda tuner: tuner.paused().__enter__(),
    "resume": lambda tuner: tuner.resume(),
    "run_in_background": lambda tuner: tuner.run_in_background(),
    "score": lambda tuner: tuner.score(ROWS[:1]),
    "snapshot": lambda tuner: tuner.snapshot(),
    "start": lambda tuner: tuner.start(),
    "step": lambda tuner: tuner.step(),
    "stop": lambda tuner: tuner.stop(),
    "stream": lambda tuner: tuner.stream("w1 w2"),
    "sync": lambda tuner: tuner.sync(),
    "subscribe": lambda tuner: tuner.subscribe(print),
    "wait_for_examples": lambda tuner: tuner.wait_for_examples(),
}
"""Every public method of a tuner, but `open`, and `close`, which does nothing in a fork."""


def not_refused(tuner: Tuner, text: str = FORK_OF_TUNER) -> list[str]:
    """The calls that end in anything but a refusal with this text."""
    odd: list[str] = []
    for name, call in CALLS.items():
        try:
            call(tuner)
        except UsageError as error:
            if text in str(error):
                continue
        except BaseException:  # whatever it is, the parent has to hear of it
            pass
        odd.append(name)
    return odd
