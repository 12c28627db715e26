"""Block schedules: the blocks that a step perturbs and updates (its active blocks)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgezo_runtime.errors import UsageError
from edgezo_runtime.noise import derive_seed

BlockSchedule = Callable[[int, int, Sequence[int]], tuple[int, ...]]
"""schedule(step, seed, blocks): the active blocks among the trainable `blocks`, in their order.

`seed` is the seed of the run. The result depends on the arguments only, so any step can be computed
without the steps before it.
"""

_MOST_DIGITS = 20


def every() -> BlockSchedule:
    """Activate all blocks in every step.

    Returns:
        A schedule.
    """

    def active(step: int, seed: int, blocks: Sequence[int]) -> tuple[int, ...]:
        return tuple(_require_blocks(blocks))

    return active


def cyclic(count: int = 1) -> BlockSchedule:
    """Activate `count` neighbouring blocks per step, in turn from the first to the last.

    Args:
        count: blocks per step, > 0; a larger number than there are means all.

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
    """Activate `count` different blocks per step, every choice equally likely.

    Args:
        count: blocks per step, > 0; a larger number than there are means all.

    Returns:
        A schedule.

    Raises:
        UsageError: count is below 1.

    References:
        Wang et al. 2024, arXiv:2410.09823 (LeZO).
    """
    _require_count("random", count)
    return lambda step, seed, blocks: _drawn(step, seed, _require_blocks(blocks), count)


def random_share(percent: int) -> BlockSchedule:
    """Activate a share of the blocks per step, at least one, every choice equally likely.

    Args:
        percent: percentage of the blocks, 1 to 100.

    Returns:
        A schedule.

    Raises:
        UsageError: percent is out of range.

    References:
        Wang et al. 2024, arXiv:2410.09823 (LeZO); the active share is 1 - sparsity.
    """
    if not 1 <= percent <= 100:
        raise UsageError(f"block schedule 'random': {percent}% is not 1% to 100%")

    def active(step: int, seed: int, blocks: Sequence[int]) -> tuple[int, ...]:
        count = (len(_require_blocks(blocks)) * percent + 50) // 100
        return _drawn(step, seed, blocks, max(1, count))

    return active


def _drawn(step: int, seed: int, blocks: Sequence[int], count: int) -> tuple[int, ...]:
    """Draw `count` different blocks, in their order."""
    order = list(range(len(blocks)))
    step_seed = derive_seed(seed, "blocks", step)
    wanted = min(count, len(order))
    for i in range(wanted):  # the first draws of a Fisher-Yates shuffle
        j = i + derive_seed(step_seed, "draw", i) % (len(order) - i)
        order[i], order[j] = order[j], order[i]
    return tuple(blocks[i] for i in sorted(order[:wanted]))


def last(count: int = 1) -> BlockSchedule:
    """Activate the last `count` blocks in every step.

    Earlier blocks never change, so their outputs can be cached.

    Args:
        count: blocks per step, > 0; a larger number than there are means all.

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
    """Parse a schedule such as "all", "cyclic", "random:4" or "last:20".

    Args:
        text: a name in `SCHEDULES`, then a colon and the number of blocks per step. Without a
            number it is 1; "all" takes no number; "random" also takes a share, "random:25%".

    Returns:
        The schedule.

    Raises:
        UsageError: the name is unknown, or the number is wrong.
    """
    name, colon, number = text.strip().partition(":")
    if name not in SCHEDULES:
        raise UsageError(f"block schedule '{text}': expected one of {', '.join(SCHEDULES)}")
    if not colon:
        return SCHEDULES[name]()
    if name == "all":
        raise UsageError(f"block schedule '{text}': all takes no number; use last:{number}")
    share = number.removesuffix("%")
    if (
        name == "random"
        and share != number
        and share.isascii()
        and share.isdigit()
        and len(share) < 4
    ):
        return random_share(int(share))
    if not (number.isascii() and number.isdigit() and len(number) <= _MOST_DIGITS):
        raise UsageError(f"block schedule '{text}': expected a whole number after '{name}:'")
    return SCHEDULES[name](int(number))


def _require_count(name: str, count: int) -> None:
    if count < 1:
        raise UsageError(f"block schedule '{name}': needs 1 block per step or more, not {count}")


def _require_blocks(blocks: Sequence[int]) -> Sequence[int]:
    if not blocks:
        raise UsageError("block schedule: the bundle has no trainable blocks")
    return blocks
