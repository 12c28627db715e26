"""MeZO's training loop in torch, from Algorithm 1 of the paper, with LoRA.

References:
    Malladi et al. 2023, arXiv:2305.17333, Algorithm 1 and appendix E.5 (LoRA).
    Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from tests.benchmarks.edgezo_loop import EPS, LABEL_IDS, LR, WARM_UP, timed


class LoraLinear(nn.Module):
    """A frozen linear layer with a low-rank term beside it: W x + alpha / rank * B A x."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        low = x @ self.lora_A.T
        return cast(Tensor, self.base(x)) + self.scale * (low @ self.lora_B.T)


def add_lora(model: nn.Module, targets: Sequence[str], rank: int, alpha: float, train: str) -> None:
    """Replace the linear layers called like a target; everything else is frozen.

    Args:
        model: changed in place.
        targets: last components of module paths.
        rank: r.
        alpha: scale times rank.
        train: "ab" trains both factors, "b" only B.
    """
    model.requires_grad_(False)
    for path, module in list(model.named_modules()):
        parent, _, name = path.rpartition(".")
        if name in targets and isinstance(module, nn.Linear):
            layer = LoraLinear(module, rank, alpha)
            layer.lora_A.requires_grad_(train == "ab")
            setattr(model.get_submodule(parent), name, layer)


class MezoLoop:
    """Perturbs the trainable parameters in place, and back.

    Args:
        theta: what trains.
        eps: perturbation scale.
        lr: learning rate.
    """

    def __init__(self, theta: Sequence[Tensor], eps: float, lr: float) -> None:
        self.theta = list(theta)
        self.eps = eps
        self.lr = lr

    def step(self, seed: int, loss: Callable[[], float]) -> float:
        """One step of Algorithm 1.

        Args:
            seed: of z.
            loss: evaluates a batch at theta as it stands.
        Returns:
            The projected gradient.
        """
        with torch.inference_mode():
            self._perturb(seed, self.eps)
            loss_plus = loss()
            self._perturb(seed, -2 * self.eps)
            loss_minus = loss()
            self._perturb(seed, self.eps)
            projected_grad = (loss_plus - loss_minus) / (2 * self.eps)
            self._perturb(seed, -self.lr * projected_grad)
        return projected_grad

    def _perturb(self, seed: int, scale: float) -> None:
        """theta += scale * z(seed)."""
        for theta, z in zip(self.theta, self._directions(seed), strict=True):
            theta.add_(z, alpha=scale)

    def _directions(self, seed: int) -> Iterator[Tensor]:
        torch.manual_seed(seed)
        for theta in self.theta:
            yield torch.randn(theta.shape, dtype=theta.dtype, device=theta.device)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that train."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def label_loss(
    model: nn.Module, input_ids: Tensor, label_ids: Tensor, labels: Tensor, *, all_logits: bool
) -> float:
    """Cross entropy over the label words.

    Args:
        model: a causal language model of transformers, in eval mode.
        input_ids: (B, S) without padding; the last position predicts the label word.
        label_ids: (C,) token of each class.
        labels: (B,) class of each row.
        all_logits: logits of every position over the whole vocabulary, as the reference computes
            them; else those of the last position only, which is all that the loss needs.
    """
    output: Any = model(input_ids, logits_to_keep=0 if all_logits else 1, use_cache=False)
    logits = output.logits[:, -1, label_ids]  # (B, C)
    return float(nn.functional.cross_entropy(logits, labels))


def mezo_steps(
    model: str,
    steps: int,
    threads: int | None,
    scheme: dict[str, Any],
    all_logits: bool,
    rows: int,
    tokens: int,
) -> dict[str, Any]:
    """Steps of MeZO's loop."""
    import transformers

    if threads is not None:
        torch.set_num_threads(threads)
    network: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    network.eval()
    torch.manual_seed(0)
    add_lora(network, **scheme)
    loop = MezoLoop(trained(network), EPS, LR)
    label_ids = torch.tensor(LABEL_IDS)

    def step() -> None:
        input_ids = torch.randint(network.config.vocab_size, (rows, tokens))
        labels = torch.randint(len(LABEL_IDS), (rows,))
        loop.step(
            int(torch.randint(2**31, ())),
            lambda: label_loss(network, input_ids, label_ids, labels, all_logits=all_logits),
        )

    seconds = [timed(step) for _ in range(WARM_UP + steps)][WARM_UP:]
    return {"seconds": seconds, "trained": sum(p.numel() for p in loop.theta)}
