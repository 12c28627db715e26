"""The real tokens that virtual tokens start as."""

from __future__ import annotations

from edgezo_export.schemes.randomness import generator
from edgezo_export.schemes.scheme import ModelFacts
from edgezo_runtime.errors import UsageError


def choose_tokens(count: int, model: ModelFacts, seed: int) -> tuple[int, ...]:
    """Choose random tokens of the vocabulary, none of them special.

    Virtual tokens that start as random numbers hardly train at all with zeroth-order steps
    (Malladi et al. 2023, arXiv:2305.17333, appendix E, which uses random real tokens too).

    Args:
        count: number of tokens.
        model: the model.
        seed: of the choice.
    Raises:
        UsageError: the count is below one, or does not fit the model.
    """
    known = [token for token in range(model.vocab_size) if token not in model.special_ids]
    most = min(len(known), model.max_seq - 2)
    if not 1 <= count <= most:
        raise UsageError(f"`virtual_tokens` {count}: must be 1 to {most} in this model")
    chosen = generator(seed, "virtual tokens").choice(len(known), count, replace=False)
    return tuple(known[index] for index in chosen)
