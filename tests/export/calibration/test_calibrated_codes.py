"""Codes made block by block."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch

from edgezo_export.calibration.calibrated_codes import CalibratedCodes
from edgezo_export.calibration.calibration_graphs import HIDDEN
from edgezo_export.calibration.row_states import RowStates
from edgezo_export.quantization.error_compensation import Moments, compensated_groups
from edgezo_export.quantization.group_codes import GroupCodes
from edgezo_export.quantization.rotation import rotate_rows
from edgezo_export.quantization.weights_file import read_float32
from edgezo_export.quantization.weights_plan import PlannedTensor, plan_codes
from edgezo_export.sources.model_source import TensorReader
from tests.export.calibration.linear_inputs import linear_inputs
from tests.export.calibration.test_calibration_graphs import graphs_of
from tests.export.graph_runner import StateDict
from tests.export.tiny_models import VOCAB

ROWS = np.random.default_rng(0).integers(4, VOCAB, (6, 24))
QKV = [f"model.layers.{{}}.self_attn.{name}_proj.weight" for name in "qkv"]


def entry(names: list[str], block: int, outputs: int) -> PlannedTensor:
    sources = [name.format(block) for name in names]
    return plan_codes("w", "m", sources, (64, outputs), 32, transpose=True)[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny llama, and the codes of its blocks' first layers."""
    model, graphs = graphs_of("llama")
    told: list[tuple[int, int]] = []
    codes = CalibratedCodes(
        graphs,
        StateDict(model),
        ROWS,
        32,
        lambda done, total: told.append((done, total)),
        tmp_path_factory.mktemp("states"),
    )
    found = [list(codes.codes(entry(QKV, block, 128), 32)) for block in (0, 1)]
    with pytest.raises(ValueError, match="no block multiplies with it"):
        list(codes.codes(entry(["absent{}"], 0, 128), 32))
    assert told == [(1, 2), (2, 2)]
    return model, found


def meant(codes: GroupCodes) -> np.ndarray:
    """Weights in the model's own basis."""
    return rotate_rows(codes.values())


def test_the_first_block_reads_what_torch_reads(made):
    """Its codes are those of the rows that the torch model reads, but for the 8-bit embedding."""
    model, (first, _) = made
    name = QKV[0].format(0)
    read = linear_inputs(model, torch.tensor(ROWS))[name.removesuffix(".weight")]
    moments = Moments(64)
    moments.add(rotate_rows(read))
    weights = model.state_dict()[name].numpy()
    expected = compensated_groups(rotate_rows(weights), 32, moments.factors())
    assert np.mean(first[0].codes == expected.codes) > 0.9
    for found, part in zip(first, QKV, strict=True):
        weights = model.state_dict()[part.format(0)].numpy()
        assert np.abs(meant(found) - weights).max() < 0.3 * np.abs(weights).max()


def test_codes_bring_the_output_nearer_than_rounding(made):
    from edgezo_export.quantization.group_codes import round_groups

    model, blocks = made
    read = linear_inputs(model, torch.tensor(ROWS))
    for block, codes in enumerate(blocks):
        for found, part in zip(codes, QKV, strict=True):
            name = part.format(block)
            weights = model.state_dict()[name].numpy()
            x = read[name.removesuffix(".weight")]
            plain = meant(round_groups(rotate_rows(weights), 32))
            error, rounded = (
                np.square(x @ (values - weights).T).sum() for values in (meant(found), plain)
            )
            assert error < 0.8 * rounded, name


def test_one_block_is_in_memory_at_a_time(monkeypatch, tmp_path):
    """The weights of a block of 8 billion parameters are 870 MB: the next ones came beside them."""
    model, graphs = graphs_of("llama")
    held: list[weakref.ref[np.ndarray]] = []
    alive: dict[int, int] = {}

    def read(planned: PlannedTensor, source: TensorReader) -> np.ndarray:
        block = int(planned.sources[0].split(".")[2])
        alive.setdefault(block, sum(one() is not None for one in held))
        array = read_float32(planned, source).copy()
        held.append(weakref.ref(array))
        return array

    monkeypatch.setattr("edgezo_export.calibration.calibrated_codes.read_float32", read)
    codes = CalibratedCodes(
        graphs, StateDict(model), ROWS[:1], 32, lambda done, total: None, tmp_path
    )
    for block in (0, 1):
        list(codes.codes(entry(QKV, block, 128), 32))
    assert alive == {0: 0, 1: 0}


def test_the_block_behind_reads_what_the_codes_mean(monkeypatch, tmp_path):
    """Weights leave the memory when their codes are made, and come back from the codes alone."""
    model, graphs = graphs_of("llama")
    fed: list[dict[str, np.ndarray]] = []
    run = CalibratedCodes._run

    def watched(self, draft, weights, hidden, context, names):
        fed.append(dict(weights) if names == [HIDDEN] else {})
        return run(self, draft, weights, hidden, context, names)

    monkeypatch.setattr(CalibratedCodes, "_run", watched)
    monkeypatch.setattr("edgezo_export.calibration.calibrated_codes._NUMBERS", 64 * 5)
    codes = CalibratedCodes(
        graphs, StateDict(model), ROWS[:2], 32, lambda done, total: None, tmp_path
    )
    found = list(codes.codes(entry(QKV, 0, 128), 32))
    name = graphs.blocks()[0].inputs[tuple(part.format(0) for part in QKV)]
    assert [name in weights for weights in fed] == [False] * 2 + [True] * 2
    expected = np.concatenate([meant(own) for own in found]).T
    np.testing.assert_allclose(fed[-1][name], expected, rtol=0, atol=1e-6)


def test_states_of_rows_are_read_one_at_a_time(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 1, 4, 5)).astype(np.float32)
    states = RowStates(tmp_path / "states", (4, 5))
    for number, row in enumerate(rows):
        states.write(number, row)
    states.write(1, 2 * rows[1])
    for number, scale in enumerate((1, 2, 1)):
        np.testing.assert_array_equal(states.read(number), scale * rows[number])
    with pytest.raises(ValueError, match="reshape"):
        states.read(3)
    states.write(0, rows[0])  # a new file
    assert (tmp_path / "states").stat().st_size == rows[0].nbytes


def test_the_parts_that_are_rounded_do_not_matter(made, monkeypatch, tmp_path):
    model, (first, _) = made
    monkeypatch.setattr("edgezo_export.calibration.calibrated_codes._NUMBERS", 64 * 5)
    _, graphs = graphs_of("llama")
    codes = CalibratedCodes(graphs, StateDict(model), ROWS, 32, lambda done, total: None, tmp_path)
    for found, whole in zip(codes.codes(entry(QKV, 0, 128), 32), first, strict=True):
        assert np.mean(found.codes == whole.codes) > 0.99  # sums in another order
        assert np.array_equal(found.scales, whole.scales)


def test_groups_of_another_size_are_refused(tmp_path):
    model, graphs = graphs_of("llama")
    codes = CalibratedCodes(
        graphs, StateDict(model), ROWS[:1], 32, lambda done, total: None, tmp_path
    )
    with pytest.raises(ValueError, match="another size than 16"):
        list(codes.codes(entry(QKV[:1], 0, 64), 16))


@pytest.mark.slow
def test_a_layer_that_runs_on_two_inputs_has_codes_for_each(tmp_path):
    """DeBERTa multiplies queries and keys with the tokens, and again with relative positions."""
    model, graphs = graphs_of("deberta-v2")
    block = graphs.blocks()[0]
    wide, narrow = sorted(
        {own for own in block.weights if any("query_proj" in name for name in own)},
        key=len,
        reverse=True,
    )
    assert set(narrow) < set(wide)
    codes = CalibratedCodes(graphs, StateDict(model), ROWS, 32, lambda done, total: None, tmp_path)
    first, second = (
        list(codes.codes(entry(list(own), 0, 64 * len(own)), 32)) for own in (wide, narrow)
    )
    place = wide.index(narrow[0])
    assert [len(found.codes) for found in first] == [64] * len(wide)
    assert not np.array_equal(first[place].codes, second[0].codes)
    weights = model.state_dict()[narrow[0]].numpy()
    for found in (first[place], second[0]):
        assert np.abs(meant(found) - weights).max() < 0.3 * np.abs(weights).max()
