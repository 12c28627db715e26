"""Steps of torch in bfloat16 on a LoRA of PEFT: by back-propagation, or as MeZO takes them.

The model has the shape of a configuration and random weights; the LoRA trains what edgezo's default
scheme does: rank 1 beside every linear layer of the blocks, B alone.
"""

from __future__ import annotations

import time
from typing import Any

from tests.benchmarks.edgezo_loop import EPS, LABEL_IDS, LR, timed

BYTES_PER_WEIGHT = 2
MARGIN = 1.25
"""Memory of a step over that of the weights: activations of rows of 512 tokens, and libraries."""


def needed_bytes(parameters: int) -> int:
    """Estimate the memory of a step in bfloat16."""
    return int(parameters * BYTES_PER_WEIGHT * MARGIN)


def peft_steps(
    content: dict[str, Any],
    rows: int,
    tokens: int,
    steps: int,
    warm_up: int,
    first_order: bool,
    threads: int | None = None,
    place: str = "cpu",
) -> dict[str, Any]:
    """Take steps on random tokens; the loss is that of label words at the last token.

    Args:
        content: of config.json.
        rows: of a batch.
        tokens: of a row.
        steps: timed ones.
        warm_up: steps before them.
        first_order: AdamW on the gradient, blocks recomputed on the way back; else MeZO.
        threads: of torch; its own choice if None.
        place: device of torch.
    """
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from torch import nn

    from tests.benchmarks.mezo_loop import MezoLoop, label_loss, trained
    from tests.benchmarks.random_models import config_of

    if threads is not None:
        torch.set_num_threads(threads)
    config = config_of(content)
    cls = getattr(transformers, content["architectures"][0])
    torch.manual_seed(0)
    with torch.device(place):
        network = cls._from_config(config, dtype=torch.bfloat16)
    settings = LoraConfig(r=1, lora_alpha=1, target_modules="all-linear")
    model: Any = get_peft_model(network, settings).to(place)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    model.config.use_cache = False
    if first_order:
        network.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    else:
        model.eval()
    theta = trained(model)
    optimizer = torch.optim.AdamW(theta, lr=LR)
    mezo = MezoLoop(theta, EPS, LR)
    label_ids = torch.tensor(LABEL_IDS, device=place)

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(3, config.vocab_size, (rows, tokens))
        return ids.to(place), torch.randint(len(LABEL_IDS), (rows,)).to(place)

    def exact() -> None:
        ids, labels = batch()
        logits = model(ids, logits_to_keep=1).logits[:, -1, label_ids]
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if place != "cpu":
            torch.cuda.synchronize()

    def estimated() -> None:
        ids, labels = batch()
        mezo.step(
            int(torch.randint(2**31, ())),
            lambda: label_loss(model, ids, label_ids, labels, all_logits=False),
        )

    step = exact if first_order else estimated
    seconds: list[float] = []
    cores: list[float] = []
    for _ in range(warm_up + steps):
        busy = time.process_time()
        seconds.append(timed(step))
        cores.append(time.process_time() - busy)
    trained_numbers = sum(parameter.numel() for parameter in theta)
    return {
        "seconds": seconds[warm_up:],
        "cores": cores[warm_up:],
        "trained": trained_numbers,
        "device_peak": torch.cuda.max_memory_allocated() if place != "cpu" else 0,
    }
