"""Real tokens as which virtual ones begin."""

from __future__ import annotations

from edgezo_export.schemes.randomness import generator
from edgezo_export.schemes.scheme import ModelFacts
from edgezo_runtime.errors import UsageError


def choose_tokens(count: int, model: ModelFacts, seed: int) -> tuple[int, ...]:
    """Random tokens of the vocabulary, none of the special ones.

    Virtual tokens that begin as random numbers hardly train at all with zeroth-order steps
    (Malladi et al. 2023, arXiv:2305.17333, appendix E, which takes random real tokens too).

    Args:
        count: how many.
        model: the model.
        seed: of the choice.
    Raises:
        UsageError: fewer than one, or no room for them.
    """
    known = [token for token in range(model.vocab_size) if token not in model.special_ids]
    most = min(len(known), model.max_seq - 2)
    if not 1 <= count <= most:
        raise UsageError(f"--virtual-tokens {count}: must be 1 to {most} in this model")
    chosen = generator(seed, "virtual tokens").choice(len(known), count, replace=False)
    return tuple(known[index] for index in chosen)
