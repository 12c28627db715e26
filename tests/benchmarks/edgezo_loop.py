"""Training steps of edgezo, timed, in a process that imports nothing else."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from edgezo_runtime.devices.choice import Wanted
    from edgezo_runtime.engine.engine import Engine

WARM_UP = 4
"""The data are as many batches: what is kept between steps is there when timing begins."""

EPS, LR = 1e-2, 1e-4
LABEL_IDS = (5, 11)


def edgezo_steps(
    bundle: str,
    steps: int,
    threads: int | None,
    rows: int,
    tokens: int,
    scope: Literal["all", "answer"] = "all",
    budget: int | None = None,
    warm_up: int = WARM_UP,
    cold: bool = False,
    first_order: bool = False,
    device: Wanted = "cpu",
    device_budget: int | None = None,
) -> dict[str, Any]:
    """Take steps with the tuner, journal included; with a budget, as planned for it.

    Cold: every step finds the weights on the disk and none of them in the system's cache.
    First-order: steps by the gradient of all blocks, not estimates from two losses.
    """
    from edgezo_runtime.budget.device_plan import plan_device
    from edgezo_runtime.budget.memory_limits import limited_engine
    from edgezo_runtime.budget.placement import Placement
    from edgezo_runtime.budget.plan import make_plan
    from edgezo_runtime.bundle.bundle import Bundle
    from edgezo_runtime.config import TuneConfig
    from edgezo_runtime.data.random_rows import random_rows
    from edgezo_runtime.devices.choice import choose_device
    from edgezo_runtime.devices.library import import_onnxruntime
    from edgezo_runtime.journal.run_folder import RunFolder
    from edgezo_runtime.system.memory import rss_bytes
    from tests.benchmarks.page_cache import disk_bytes
    from tests.runtime.tuner_runs import unstarted

    import_onnxruntime()
    process = rss_bytes()
    opened = Bundle.open(bundle, verify=False)  # what is measured is the run
    config = TuneConfig(
        method="zo-sgd",
        blocks="all",
        scope=scope,
        steps=10**9,
        max_time_s=0,
        batch_size=rows,
        eps=EPS,
        lr=LR,
        lr_schedule="constant",
        horizon=0,
        normalize=False,
        clip=0,
        average=0,
    )
    if first_order:
        blocks = opened.manifest.model.num_blocks
        config = replace(config, first_order=blocks, first_order_lr=LR)
    examples = random_rows(
        max(1, warm_up) * rows, tokens, opened.manifest.model.vocab_size, LABEL_IDS
    )
    plan: dict[str, Any] = {}
    placement = Placement(choose_device(device).device, "", device_budget)
    engine = limited_engine(opened, budget, threads, placement)
    with (
        tempfile.TemporaryDirectory() as run,
        unstarted(engine, examples, config, RunFolder(Path(run))) as tuner,
    ):
        if budget is not None:
            made = make_plan(tuner.run, budget, process_bytes=process)
            made.apply(engine)
            plan_device(engine, made.growth.planned)
            plan = made.as_json()
        tuner.start()
        seconds: list[float] = []
        cores: list[float] = []
        read: list[int] = []
        for _ in range(warm_up + steps):
            if cold:
                evict_weights(engine)
            before, busy = disk_bytes(), time.process_time()
            seconds.append(timed(tuner.step))
            cores.append(time.process_time() - busy)
            read.append(disk_bytes() - before)
    trained = [t.shape for t in opened.manifest.trainables if t.trains]
    return {
        "plan": plan,
        "streamed": len(engine.streamed),
        "reliefs": engine.reliefs,
        "seconds": seconds[warm_up:],
        "cores": cores[warm_up:],
        "read": read[warm_up:],
        "trained": sum(rows * columns for rows, columns in trained),
        "device_peak": placement.device.ledger.peak_bytes,
    }


def evict_weights(engine: Engine) -> None:
    """Drop all mapped weights from this process and from the system's cache."""
    from tests.benchmarks.page_cache import evict

    weights = engine.model.weights
    weights.drop(0, weights.path.stat().st_size)
    evict(weights.path)


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
