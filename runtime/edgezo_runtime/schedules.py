"""Block schedules: which blocks are active, that is perturbed and updated, in which step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgezo_runtime.errors import UsageError
from edgezo_runtime.noise import derive_seed

BlockSchedule = Callable[[int, int, Sequence[int]], tuple[int, ...]]
"""schedule(step, seed, blocks): the active ones of the trainable `blocks`, in their order.

`seed` is the seed of the run. The answer depends on the arguments only, so any step can be
answered without those before it.
"""


def every() -> BlockSchedule:
    """All blocks in every step.

    Returns:
        A schedule.
    """

    def active(step: int, seed: int, blocks: Sequence[int]) -> tuple[int, ...]:
        return tuple(_require_blocks(blocks))

    return active


def cyclic(count: int = 1) -> BlockSchedule:
    """`count` neighbouring blocks a step, going round from the first to the last.

    Args:
        count: blocks a step, > 0; more than there are means all.

    Returns:
        A schedule.

    Raises:
        UsageError: count is below 1.
    """
    _require_count("cyclic", count)

    def active(step: int, seed: int, blocks: Sequence[int]) -> tuple[int, ...]:
        total = len(_require_blocks(blocks))
        chosen = {(step * count + i) % total for i in range(min(count, total))}
        return tuple(blocks[i] for i in sorted(chosen))

    return active


def random(count: int = 1) -> BlockSchedule:
    """`count` different blocks a step, every choice equally likely.

    Args:
        count: blocks a step, > 0; more than there are means all.

    Returns:
        A schedule.

    Raises:
        UsageError: count is below 1.

    References:
        Wang et al. 2024, arXiv:2410.09823 (LeZO). Differs: a number of blocks, not a ratio.
    """
    _require_count("random", count)

    def active(step: int, seed: int, blocks: Sequence[int]) -> tuple[int, ...]:
        order = list(range(len(_require_blocks(blocks))))
        step_seed = derive_seed(seed, "blocks", step)
        wanted = min(count, len(order))
        for i in range(wanted):  # the first draws of a Fisher-Yates shuffle
            j = i + derive_seed(step_seed, "draw", i) % (len(order) - i)
            order[i], order[j] = order[j], order[i]
        return tuple(blocks[i] for i in sorted(order[:wanted]))

    return active


def last(count: int = 1) -> BlockSchedule:
    """The last `count` blocks in every step: those before them never change, so their work caches.

    Args:
        count: blocks a step, > 0; more than there are means all.

    Returns:
        A schedule.

    Raises:
        UsageError: count is below 1.
    """
    _require_count("last", count)

    def active(step: int, seed: int, blocks: Sequence[int]) -> tuple[int, ...]:
        return tuple(_require_blocks(blocks)[-count:])

    return active


SCHEDULES: dict[str, Callable[..., BlockSchedule]] = {
    "all": every,
    "cyclic": cyclic,
    "random": random,
    "last": last,
}


def parse_schedule(text: str) -> BlockSchedule:
    """Make the schedule a text names: "all", "cyclic", "random:4", "last:20".

    Args:
        text: a name in `SCHEDULES`, and after a colon the number of blocks a step (1 if left out;
            "all" takes none).

    Returns:
        The schedule.

    Raises:
        UsageError: the name is unknown, or the number is not one.
    """
    name, colon, number = text.strip().partition(":")
    if name not in SCHEDULES:
        raise UsageError(f"block schedule '{text}': expected one of {', '.join(SCHEDULES)}")
    if not colon:
        return SCHEDULES[name]()
    if name == "all":
        raise UsageError(f"block schedule '{text}': all takes no number; use last:{number}")
    if not (number.isascii() and number.isdigit()):
        raise UsageError(f"block schedule '{text}': expected a whole number after '{name}:'")
    return SCHEDULES[name](int(number))


def _require_count(name: str, count: int) -> None:
    if count < 1:
        raise UsageError(f"block schedule '{name}': needs 1 block a step or more, not {count}")


def _require_blocks(blocks: Sequence[int]) -> Sequence[int]:
    if not blocks:
        raise UsageError("block schedule: the bundle has no trainable blocks")
    return blocks
