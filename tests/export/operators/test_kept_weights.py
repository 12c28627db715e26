"""Kept codes made float32 in graphs, against the values that numpy computes; their gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgezo_export.derivatives.pull_back import pull_back
from edgezo_export.graph_builder import GraphBuilder
from edgezo_export.operators import tiles
from edgezo_export.operators.kept_weights import kept_part, kept_product, kept_rows, whole
from edgezo_export.operators.layers import LinearSpec
from edgezo_export.quantization.kept_plan import kept_arrays, packed_planes, plan_kept
from edgezo_export.sources.stored_codes import CodedRows, CodeForm

OUT, WIDTH = 6, 64
SPEC = LinearSpec(("m.q",), (OUT,), WIDTH, False, ())
FORMS = {
    "4 bits": CodeForm(4, 32, zero=8),
    "5 bits": CodeForm(5, 32, zero=16),
    "6 bits, factors": CodeForm(6, 16, zero=32, factors=4),
    "8 bits": CodeForm(8, 32, zero=128, scale="F32"),
    "minimums": CodeForm(4, 16, zero=8, minimum=True),
    "minimums, factors": CodeForm(5, 16, zero=16, minimum=True, factors=2),
    "zeros of groups": CodeForm(4, 32, zero=None),
    "an order": CodeForm(8, 32, zero=None, order="x"),
    "nf4": CodeForm(4, 32, scale="F32", nf4=True),
}


def rows_of(form: CodeForm) -> CodedRows:
    random = np.random.default_rng(0)
    groups = WIDTH // form.size
    coarse = groups // form.factors if form.factors else groups

    def numbers() -> np.ndarray:
        return random.uniform(0.1, 1, (OUT, coarse)).astype(np.float16).astype(np.float32)

    def factors() -> np.ndarray:
        return random.integers(-31, 32, (OUT, groups), dtype=np.int8)

    return CodedRows(
        random.integers(0, 1 << form.bits, (OUT, WIDTH), dtype=np.uint8),
        numbers(),
        zero=None if form.zero is not None else random.integers(0, 16, (OUT, groups), np.uint8),
        minimum=-numbers() if form.minimum else None,
        factor=factors() if form.factors else None,
        minimum_factor=factors() if form.factors and form.minimum else None,
        order=random.permutation(WIDTH).astype(np.int32) if form.order else None,
    )


def stored(form: CodeForm, rows: CodedRows) -> dict[str, np.ndarray]:
    """The tensors of a weights file by name, rows written in two parts."""
    plan = plan_kept("m.q", ("m.q.weight",), form, (OUT, WIDTH))
    entry, *parts = plan.values()
    arrays = list(kept_arrays(entry, parts, lambda name, a, b: rows.taken(slice(a, b)), [OUT]))
    found = {}
    for index, tensor in enumerate((entry, *parts)):
        own = [chunk[index] for chunk in arrays if chunk[index] is not None]
        found[tensor.name.removeprefix("m.")] = np.concatenate(own)
        assert found[tensor.name.removeprefix("m.")].shape == tensor.shape
    return found


def ran(draft: GraphBuilder, names, feed) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(draft.serialize(), providers=["CPUExecutionProvider"])
    return session.run(names, feed)


@pytest.fixture(params=["whole", "tiles"])
def cut(request, monkeypatch) -> int:
    """Tiles of a matrix: one, or two of which the last is smaller."""
    if request.param == "whole":
        return 1
    monkeypatch.setattr(tiles, "NUMBERS", 4 * WIDTH)
    monkeypatch.setattr(tiles, "_ALIGNED", 4)
    return 2


@pytest.mark.parametrize("name", FORMS)
def test_products_and_their_gradients(name, cut):
    form, rows = FORMS[name], rows_of(FORMS[name])
    weights = rows.values(form)
    draft = GraphBuilder("kept", "m.")
    x = draft.input("x", ir.DataType.FLOAT, ("rows", "tokens", WIDTH))
    y = kept_product(draft, SPEC, form, x, draft.op("Shape", x, start=0, end=2))
    grad = draft.input("grad", ir.DataType.FLOAT, ("rows", "tokens", OUT))
    (back,) = pull_back(draft, {y: grad}, [x])
    draft.output(y, "y", ir.DataType.FLOAT, ("rows", "tokens", OUT))
    draft.output(back, "back", ir.DataType.FLOAT, ("rows", "tokens", WIDTH))
    random = np.random.default_rng(1)
    x_values = random.standard_normal((2, 3, WIDTH)).astype(np.float32)
    grads = random.standard_normal((2, 3, OUT)).astype(np.float32)
    found = ran(draft, ["y", "back"], {"x": x_values, "grad": grads} | stored(form, rows))
    largest = np.abs(weights).max()
    expected = x_values.astype(np.float64) @ weights.T
    np.testing.assert_allclose(found[0], expected, atol=2e-5 * largest)
    np.testing.assert_allclose(found[1], grads.astype(np.float64) @ weights, atol=5e-6 * largest)
    # The way back makes the weights again: nothing of them waits from the way there.
    made = [node for node in draft.nodes if node.op_type in ("DequantizeLinear", "Gather")]
    assert len(made) >= 2 * cut


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("name", FORMS)
def test_unused_weights(name, count, cut):
    """No rows: a product of no rows with every output, of one row of the weights for a tile."""
    form, rows = FORMS[name], rows_of(FORMS[name])
    draft = GraphBuilder("kept", "m.")
    x = draft.input("x", ir.DataType.FLOAT, ("rows", "tokens", WIDTH))
    used = draft.input("used", ir.DataType.INT64, (1,))
    y = kept_product(draft, SPEC, form, x, draft.op("Shape", x, start=0, end=2), used)
    draft.output(y, "y", ir.DataType.FLOAT, ("rows", "tokens", OUT))
    gemms = [node for node in draft.nodes if node.op_type == "Gemm"]
    read = [draft.op("Shape", node.inputs[1], start=0, end=1) for node in gemms]
    draft.output(draft.op("Concat", *read, axis=0), "read", ir.DataType.INT64, (len(read),))
    values = np.random.default_rng(1).standard_normal((2, count, WIDTH)).astype(np.float32)
    feed = {"x": values, "used": np.array([min(count, 1)])} | stored(form, rows)
    found, taken = ran(draft, ["y", "read"], feed)
    weights = rows.values(form)
    assert found.shape == (2, count, OUT)
    np.testing.assert_allclose(found, values @ weights.T, atol=2e-5 * np.abs(weights).max())
    products = 2 if form.minimum else 1
    assert taken.sum() == products * (OUT if count else cut)


@pytest.mark.parametrize("name", [name for name in FORMS if name not in ("an order", "nf4")])
def test_rows_of_a_table(name):
    form, rows = FORMS[name], rows_of(FORMS[name])
    draft = GraphBuilder("table", "m.")
    ids = draft.input("ids", ir.DataType.INT64, ("rows", "tokens"))
    picked = kept_rows(draft, "m.q.weight", form, (OUT, WIDTH), ids)
    draft.output(picked, "picked", ir.DataType.FLOAT, ("rows", "tokens", WIDTH))
    values = np.array([[3, 0, 3], [5, 1, 2]])
    found = ran(draft, ["picked"], {"ids": values} | stored(form, rows))[0]
    np.testing.assert_allclose(found, rows.values(form)[values], rtol=1e-6, atol=1e-6)


def test_a_part_of_a_table():
    form = FORMS["minimums, factors"]
    rows = rows_of(form)
    draft = GraphBuilder("table", "m.")
    part = kept_part(draft, "m.q.weight", form, (OUT, WIDTH), range(2, 5), draft.ints(0))
    values = whole(draft, part, form, WIDTH)
    draft.output(values, "part", ir.DataType.FLOAT, (3, WIDTH))
    bindings = {binding.input: binding for binding in draft.weights}
    assert {binding.start for binding in bindings.values()} == {2}
    tensors = stored(form, rows)
    feed = {name: tensors[b.tensor.removeprefix("m.")][2:5] for name, b in bindings.items()}
    np.testing.assert_allclose(
        ran(draft, ["part"], feed)[0], rows.values(form)[2:5], rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("bits", [4, 5, 6, 8])
def test_planes_hold_every_code(bits):
    """Reads planes as their docstring says, number by number."""
    codes = np.random.default_rng(0).integers(0, 1 << bits, (3, 32), dtype=np.uint8)
    form = CodeForm(bits, 16)
    found, shift = np.zeros_like(codes), 0
    for plane, own in zip(packed_planes(codes, form), form.planes, strict=True):
        part = 32 * own // 8
        assert plane.shape == (3, part)
        for index in range(32):
            number = (plane[:, index % part] >> (index // part * own)) & ((1 << own) - 1)
            found[:, index] |= (number << shift).astype(np.uint8)
        shift += own
    np.testing.assert_array_equal(found, codes)
