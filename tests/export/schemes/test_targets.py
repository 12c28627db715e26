"""Names of layers that a scheme adapts."""

from __future__ import annotations

import pytest

from edgezo_export.schemes.targets import check_targets, last_of_mlp
from edgezo_runtime.errors import UsageError

LAYERS = ("down_proj", "q_proj", "up_proj")


@pytest.mark.parametrize(
    ("wanted", "layers", "found"),
    [
        ((), LAYERS, ("down_proj",)),
        ((), ("c_attn", "c_fc", "c_proj"), ("c_proj",)),
        (("up_proj", "q_proj"), LAYERS, ("up_proj", "q_proj")),
    ],
)
def test_layers_are_those_named_or_the_last_of_the_mlp(wanted, layers, found):
    assert last_of_mlp(wanted, layers) == found


def test_names_that_no_layer_has():
    with pytest.raises(UsageError, match=r"`targets` x,y: .* it has down_proj, q_proj, up_proj$"):
        check_targets(("x", "q_proj", "y"), LAYERS)
    with pytest.raises(UsageError, match="`targets` none given"):
        last_of_mlp((), ("odd", "names"))
