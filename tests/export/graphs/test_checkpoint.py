"""Names of traced parameters in the checkpoint."""

from __future__ import annotations

import onnx_ir as ir

from edgezo_export.graphs.checkpoint import Checkpoint


def test_tied_parameters_share_a_name():
    checkpoint = Checkpoint({"lm_head.weight": "model.embed.weight"}, {}, 8)
    names = {"model.lm_head.weight": "model.embed.weight", "model.model.norm": "model.norm"}
    for traced, name in names.items():
        assert checkpoint.name(ir.Value(name=traced)) == name
