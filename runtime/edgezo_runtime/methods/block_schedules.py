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
        Wang et al. 2024, arXiv:2410.09823 (LeZO).
    """
    _require_count("random", count)
    return lambda step, seed, blocks: _drawn(step, seed, _require_blocks(blocks), count)


def random_share(percent: int) -> BlockSchedule:
    """A share of the blocks a step, at least one, every choice equally likely.

    Args:
        percent: of the blocks, 1 to 100.

    Returns:
        A schedule.

    Raises:
        UsageError: percent is out of range.

    References:
        Wang et al. 2024, arXiv:2410.09823 (LeZO); what is active is 1 less its sparsity.
    """
    if not 1 <= percent <= 100:
        raise UsageError(f"block schedule 'random': {percent}% is not 1% to 100%")

    def active(step: int, seed: int, blocks: Sequence[int]) -> tuple[int, ...]:
        count = (len(_require_blocks(blocks)) * percent + 50) // 100
        return _drawn(step, seed, blocks, max(1, count))

    return active


def _drawn(step: int, seed: int, blocks: Sequence[int], count: int) -> tuple[int, ...]:
    """`count` different blocks, in their order."""
    order = list(range(len(blocks)))
    step_seed = derive_seed(seed, "blocks", step)
    wanted = min(count, len(order))
    for i in range(wanted):  # the first draws of a Fisher-Yates shuffle
        j = i + derive_seed(step_seed, "draw", i) % (len(order) - i)
        order[i], order[j] = order[j], order[i]
    return tuple(blocks[i] for i in sorted(order[:wanted]))


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


_MOST_DIGITS = 20


def parse_schedule(text: str) -> BlockSchedule:
    """Make the schedule a text names: "all", "cyclic", "random:4", "last:20".

    Args:
        text: a name in `SCHEDULES`, and after a colon the number of blocks a step (1 if left out;
            "all" takes none; "random" takes a share as well, "random:25%").

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
        raise UsageError(f"block schedule '{name}': needs 1 block a step or more, not {count}")


def _require_blocks(blocks: Sequence[int]) -> Sequence[int]:
    if not blocks:
        raise UsageError("block schedule: the bundle has no trainable blocks")
    return blocks
