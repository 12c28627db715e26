"""Linear layers before they are lowered."""

from __future__ import annotations

from edgezo_export.operators.layers import LinearSpec


def test_layers_side_by_side():
    spec = LinearSpec(("m.q", "m.k"), (12, 4), 16, False, ("m.q.bias", "m.k.bias"))
    assert spec.name == "m.q+k"
    assert spec.sources == ("m.q.weight", "m.k.weight")
    assert spec.out_features == 16


def test_a_layer_alone():
    assert LinearSpec(("head",), (4,), 16, False, ()).name == "head"
