"""Schemes and their trainables: what contradicts itself is named."""

from __future__ import annotations

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.trainables import (
    MAX_AXIS,
    ROLES,
    SCHEME_KINDS,
    SchemeInfo,
    TrainableInfo,
    dimensions,
    scheme_problem,
    trainable_problem,
)
from edgezo_runtime.errors import BundleError
from tests.runtime.bundle.manifest_edits import edit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "ia3"}, "ia3 has no trainables of role lora_A"),
        ({"kind": "dora"}, r"scheme\.kind: expected"),
        ({"kind": "prompt"}, r"scheme\.tokens: prompt without virtual tokens"),
        ({"kind": "prefix", "tokens": [50]}, "id 50 with a vocabulary of 50"),
        ({"kind": "tt", "rank": None}, r"scheme\.rank: None is not above zero"),
        ({"kind": "lora-xs", "alpha": None}, r"scheme\.alpha: None"),
    ],
)
def test_schemes_that_contradict_their_trainables(root, change, message):
    edit(root, lambda content: content["scheme"].update(change))
    with pytest.raises(BundleError, match=message):
        Bundle.open(root)


def test_every_kind_has_roles_of_its_own():
    assert set(ROLES) == set(SCHEME_KINDS)
    for roles in ROLES.values():
        assert roles
        assert {dimensions(role) for role in roles} <= {1, 2, 3}


def test_what_a_scheme_does_to_a_row():
    lora = SchemeInfo("lora", ("q",), 4, 8.0, "b")
    assert (lora.scale, lora.prompt_tokens, lora.prefix_tokens) == (2.0, 0, 0)
    assert not lora.everywhere
    prompt, prefix = SchemeInfo("prompt", tokens=(1, 2)), SchemeInfo("prefix", tokens=(1, 2, 3))
    assert (prompt.prompt_tokens, prompt.prefix_tokens, prompt.scale) == (2, 0, 1.0)
    assert (prefix.prompt_tokens, prefix.prefix_tokens) == (0, 3)
    assert prompt.everywhere
    assert prefix.everywhere


@pytest.mark.parametrize(
    ("scheme", "problem"),
    [
        (SchemeInfo("lora", ("q",), 2, 4.0, "b"), None),
        (SchemeInfo("lora", ("q",), 2, float("inf"), "b"), "alpha: inf is not a finite number"),
        (SchemeInfo("lora", ("q",), 1, 1e-12, "b"), "alpha: 1e-12 is out of proportion to rank 1"),
        (SchemeInfo("tt", ("q",), 0, bottleneck=4), "rank: 0 is not above zero"),
        (SchemeInfo("last-layers", layers=MAX_AXIS + 1), f"layers: {MAX_AXIS + 1} is no dimension"),
        (SchemeInfo("prompt", tokens=(-1,)), "tokens: id -1 with a vocabulary of 50"),
    ],
)
def test_problems_of_schemes(scheme, problem):
    found = scheme_problem(scheme, 50)
    assert found == problem if problem is None else found.startswith(problem)


@pytest.mark.parametrize(
    ("role", "shape", "problem"),
    [
        ("lora_A", (2, 8), None),
        ("lora_B", (8, 2), None),
        ("lora_A", (8, 2), "rank 8, scheme has 2"),
        ("gain", (8,), "lora has no trainables of role gain"),
        ("lora_B", (8, 2, 1), "does not fit the role lora_B"),
        ("lora_B", (MAX_AXIS, MAX_AXIS), "is too large"),
    ],
)
def test_problems_of_trainables(role, shape, problem):
    scheme = SchemeInfo("lora", ("q",), 2, 4.0, "b")
    found = trainable_problem(TrainableInfo("a", 0, "q", role, shape, True), scheme)
    assert found == problem if problem is None else problem in found
