"""The contract of schemes."""

from __future__ import annotations

import dataclasses

import pytest

from edgezo_export.schemes import SCHEMES
from tests.export.scheme_places import ATTENTION, ENTRY, LINEAR, NORM, facts, place

LAST = place(
    LINEAR, module="m.3.down_proj", in_features=16, out_features=16, bias=True, block=3, ends="mlp"
)
PLACES = (LINEAR, NORM, ENTRY, ATTENTION, LAST)


def test_a_place_is_named_by_the_end_of_its_path():
    assert LINEAR.name == "q_proj"
    assert ENTRY.name == "0"


@pytest.mark.parametrize("kind", SCHEMES)
def test_tensors_of_a_scheme_belong_to_their_place(kind):
    scheme = SCHEMES[kind]().resolve(facts())
    assert scheme.info().kind == kind
    assert scheme.chosen <= {field.name for field in dataclasses.fields(scheme)}
    for where in PLACES:
        for edit in scheme.edits(where):
            for info in edit.tensors:
                assert (info.block, info.module) == (where.block, where.module)
                assert info.name.startswith(f"{where.module}.")
    trained = [
        info
        for where in PLACES
        for edit in scheme.edits(where)
        for info in edit.tensors
        if info.trains
    ]
    assert trained
