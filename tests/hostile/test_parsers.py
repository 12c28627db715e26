"""Whatever the bytes are, a parser takes them or refuses them with an error of edgezo's own."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile import fuzz
from tests.hostile.mutate import CHANGES, mutate
from tests.hostile.onnx_bytes import field, graph, model, node, opset, tensor
from tests.hostile.targets import Target, all_targets, execute

NAMES = (
    "manifest",
    "bundle",
    "weights",
    "trainables",
    "snapshot",
    "adapter",
    "peft",
    "peft_config",
    "journal",
    "record",
    "feedback",
    "examples",
    "evaluations",
    "replay",
    "header",
    "onnx",
    "tokenizer",
    "chat",
    "rows",
    "questions",
    "choices",
    "array",
    "table",
    "packed",
    "parquet",
    "arrow",
    "saved",
    "template",
    "config",
    "toml",
    "task",
)

quick = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def targets() -> Iterator[dict[str, Target]]:
    with all_targets() as made:
        yield made


def test_every_target_is_here(targets: dict[str, Target]) -> None:
    assert tuple(targets) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_file_is_taken(targets: dict[str, Target], name: str) -> None:
    """Else the changed ones would be refused for what they began as."""
    assert any(execute(targets[name], seed) for seed in targets[name].seeds)


@pytest.mark.parametrize("name", NAMES)
@quick
@given(number=st.integers(0, 2**32))
def test_a_changed_file(targets: dict[str, Target], name: str, number: int) -> None:
    execute(targets[name], mutate(targets[name].seeds, random.Random(number)))


@pytest.mark.parametrize("name", NAMES)
@quick
@given(data=st.data())
def test_a_file_with_changes_that_can_be_shrunk(
    targets: dict[str, Target], name: str, data: st.DataObject
) -> None:
    content = data.draw(st.sampled_from(targets[name].seeds))
    for _ in range(data.draw(st.integers(1, 3))):
        change = data.draw(st.sampled_from(CHANGES))
        content = change(content, data.draw(st.randoms(use_true_random=False))) or b"?"
    execute(targets[name], content)


@pytest.mark.parametrize("name", NAMES)
@quick
@given(content=st.binary(max_size=200))
def test_any_bytes(targets: dict[str, Target], name: str, content: bytes) -> None:
    execute(targets[name], content)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_off_anywhere(targets: dict[str, Target], name: str) -> None:
    for seed in targets[name].seeds[:2]:
        for end in range(0, len(seed), max(1, len(seed) // 25)):
            execute(targets[name], seed[:end])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 2**64, -1, 10**400, 1e308, 5e-324])
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "name", ["manifest", "header", "config", "task", "tokenizer", "peft_config"]
)
@quick
@given(data=st.data())
def test_any_value_in_any_place_of_json(
    targets: dict[str, Target], name: str, data: st.DataObject
) -> None:
    import json

    content = json.loads(data.draw(st.sampled_from(targets[name].seeds)))
    place = content
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = place[key]
    execute(targets[name], json.dumps(content).encode())


PARTS = st.recursive(
    st.builds(field, st.integers(1, 30), st.integers(0, 2**64 - 1))
    | st.builds(field, st.integers(1, 30), st.binary(max_size=8))
    | st.builds(opset, st.sampled_from(["", "com.microsoft", "x"]))
    | st.builds(node, st.sampled_from(["Add", "Loop", "EPContext"]), st.sampled_from(["", "x"]))
    | st.builds(tensor, st.tuples(st.integers(0, 2**63)), st.binary(max_size=4)),
    lambda inner: st.builds(
        lambda number, parts: field(number, b"".join(parts)),
        st.sampled_from([1, 5, 6, 7, 8, 11, 25]),
        st.lists(inner, max_size=3),
    ),
    max_leaves=8,
)


@quick
@given(parts=st.lists(PARTS, max_size=4), inner=st.lists(PARTS, max_size=4))
def test_any_fields_of_onnx(
    targets: dict[str, Target], parts: list[bytes], inner: list[bytes]
) -> None:
    execute(targets["onnx"], model(graph(*inner), *parts))


def test_what_a_target_leaves_behind_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders of processes that had died filled the memory."""
    folders: list[Path] = []

    def die(*args: object, env: dict[str, str], **kwargs: object) -> SimpleNamespace:
        folders.append(Path(env["TMPDIR"]))
        (folders[0] / "bundle").mkdir()
        return SimpleNamespace(returncode=-9)

    monkeypatch.setattr(subprocess, "run", die)
    assert fuzz._run_child("rows", 1, 0, tmp_path)[2] is not None
    assert not folders[0].exists()
