"""What hostile bundles once did, and do no more. Each test names what happened."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.onnx_file import check_onnx
from edgezo_runtime.data.chat.chat_template import ChatTemplate
from edgezo_runtime.data.tokenizer import TextTokenizer
from edgezo_runtime.errors import BundleError
from edgezo_runtime.system.safetensors_reader import TensorHeaderError, read_tensor_header
from edgezo_runtime.system.typed_json import LONGEST_TEXT, MAX_VALUES, parse_object
from tests.hostile.onnx_bytes import VALID, branch, field, graph, model, node, opset, tensor, varint
from tests.hostile.targets import byte_like
from tests.runtime.tiny_bundle import write_bundle
from tests.runtime.tiny_tokenizer import byte_tokenizer

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_a_manifest_that_is_a_link_out_of_the_bundle(bundle: Path, tmp_path: Path) -> None:
    """It was followed, to /dev/zero as well, which fills the memory."""
    outside = tmp_path / "outside.json"
    (bundle / "manifest.json").rename(outside)
    (bundle / "manifest.json").symlink_to(outside)
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_manifest_that_is_a_pipe(bundle: Path) -> None:
    """Reading it waited for ever."""
    (bundle / "manifest.json").unlink()
    os.mkfifo(bundle / "manifest.json")
    with pytest.raises(BundleError, match="not a regular file"):
        Bundle.open(bundle)


@pytest.mark.parametrize("link", ["graphs/prologue.onnx", "tokenizer.json", "weights.safetensors"])
def test_a_file_that_is_a_link_out_of_the_bundle(bundle: Path, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    (bundle / link).rename(outside)
    (bundle / link).symlink_to(outside)
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(bundle)


def _edit(bundle: Path, *place: Any) -> None:
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    *keys, last, value = place
    inner = content
    for key in keys:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("model", "hidden_size", 2**40), "is more than"),
        (("model", "vocab_size", 2**60), "is more than"),
        (("scheme", "rank", 10**400), "is no dimension"),  # alpha / rank: OverflowError
        (("scheme", "alpha", 5e-324), "out of proportion"),  # 2 / scale: ZeroDivisionError
        (("trainables", 0, "shape", [2, 2**60]), "does not fit the role"),
        (("trainables", 0, "shape", [2, 2**30]), "bytes in all"),
        (("graphs", "prologue", "outputs", []), "makes nothing"),  # IndexError
        (("graphs", "blocks", 0, "inputs", 0, "name", "odd"), "unknown input"),  # KeyError
        (("graphs", "blocks", 0, "inputs", 0, "name", "a\x1bb"), "is no name"),
        (("created_by", "\x1b[2J"), "do not print"),
        (("base_config", "x", "\ud800"), "surrogate"),
        (("base_config", "x", json.loads("[" * 70 + "]" * 70)), "nested too deeply"),
    ],
)
def test_what_no_manifest_says(bundle: Path, place: Any, message: str) -> None:
    _edit(bundle, *place)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle)


def _tensor_file(path: Path, header: object, size: int = 16) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    return path


def _entry(shape: Any, start: int = 0, end: int = 16, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": _entry([2**60])}, "shape"),
        ({"a": _entry([2**47, 2**47], 0, 16)}, "16 bytes for"),
        ({"a": _entry([4], 0, 2**60)}, "outside the file"),
        ({"a": _entry([4]), "b": _entry([4])}, "shares bytes"),  # a thousand fill the memory
        ({"a": _entry([10**4000] * 50)}, "shape"),  # minutes of multiplication
        ({"a": _entry([1] * 40)}, "shape"),  # numpy has 64 axes at most
        ({"a": {**_entry([4]), "more": 1}}, "unknown key"),
        ({"a": _entry([4.0])}, "expected int"),
        ({"a": _entry([True] * 4)}, "expected int"),
        ({"__metadata__": {"a": 1}}, "expected str"),
        (b'{"a": 1, "a": 2}', "repeated key"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "wrong"),
    ],
)
def test_what_no_tensor_file_says(tmp_path: Path, header: object, message: str) -> None:
    path = _tensor_file(tmp_path / "t", header)
    with pytest.raises(TensorHeaderError, match=message):
        read_tensor_header(path)


def test_headers_of_more_values_than_any_has(tmp_path: Path, bundle: Path) -> None:
    """Three characters became a hundred bytes: 520 MB for a header of 16 MiB."""
    many = "{}," * (LONGEST_TEXT // 3 - 100)
    with pytest.raises(TensorHeaderError, match=f"more than {MAX_VALUES} values"):
        read_tensor_header(_tensor_file(tmp_path / "t", f'{{"a":[{many}0]}}'.encode()))
    with pytest.raises(TensorHeaderError, match="a header of"):
        read_tensor_header(_tensor_file(tmp_path / "t", b" " * (LONGEST_TEXT + 1)))
    (bundle / "manifest.json").write_text(f'{{"a":[{many}0]}}')
    with pytest.raises(BundleError, match="values"):
        Bundle.open(bundle)


def test_values_are_not_what_stands_in_a_string() -> None:
    text = "," * MAX_VALUES
    assert parse_object(json.dumps({"a": text})) == {"a": text}


@pytest.mark.parametrize("length", [2**63, 2**40, 17, 100 << 20])
def test_a_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    (tmp_path / "t").write_bytes(struct.pack("<Q", length) + b"{}" + bytes(8))
    with pytest.raises(TensorHeaderError, match="a header of"):
        read_tensor_header(tmp_path / "t")


def _scan(content: bytes) -> bytes:
    return node("Scan", "", field(1, "body") + field(6, content) + field(20, 5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (model(graph(node("Steal", "evil.example"))), r"'Steal' of the domain 'evil\.example'"),
        (
            model(graph(node("Add")), opset("ai.onnx.ml")),
            r"operator set of the domain 'ai\.onnx\.ml",
        ),
        (model(graph(branch(graph(node("F", "x"))))), "domain 'x'"),
        (model(graph(node("F", "x")), field(7, graph(node("Add")))), "domain 'x'"),
        (model(graph(node("Add")), field(25, field(1, "F") + field(10, ""))), "functions"),
        (model(graph(node("Add")), field(20, b"")), "training"),
        (model(graph(node("Loop"))), "repeats a graph"),
        # Each is gone through as often as all around it: 330 bytes took minutes.
        (model(graph(_scan(graph(_scan(graph(node("Add"))))))), "Scan within another"),
        (model(graph(_scan(graph(branch(graph(node("Scan"))))))), "Scan within another"),
        (model(graph(node("Add", "", field(6, graph(node("Add")))))), "graph of its own"),
        (model(graph(field(1, field(5, field(6, b"")) + field(4, "Add")))), "graph of its own"),
        (model(graph(field(1, field(4, "Add") + field(4, "If")))), "two operator types"),
        (b"\x08\x0a\x09\x00ORTM", "onnxruntime's own format"),
        (model(graph(node("EPContext", "com.microsoft"))), "names a file"),
        (
            model(graph(field(5, tensor((1,), b"", field(13, field(1, "location")))))),
            "in another file",
        ),
        (model(graph(field(5, tensor((1,), b"\0" * 4, field(14, 1))))), "in another place"),
        (model(graph(field(5, tensor((2**40,), b"\0" * 4)))), "claims"),
        (model(graph(field(5, tensor((2**20, 2**20), b"\0" * 4)))), "claims"),
        (model(graph(field(5, tensor((2**64 - 1,), b"\0" * 4)))), "claims"),
        (model(graph(field(15, b""))), "sparse"),
        (field(1, 10), "0 graphs"),
        (b"", "0 graphs"),
        (VALID[0][:-3], "beyond its message|no integer"),
        (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "no integer"),
        (b"\x3b", "wire type 3"),
        (b"\xba\x00\x00", "no integer"),  # a tag in a longer form than it needs
        (varint(7 << 3) + varint(5), "has wire type 0"),
        (b"\x00\x00", "field number 0"),
    ],
)
def test_graphs_that_no_bundle_has(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        check_onnx(data, "graphs/x.onnx")


def test_a_file_of_two_formats(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime looks at bytes 4 to 8: one graph was checked and another one was run."""
    from edgezo_runtime.devices.library import import_onnxruntime
    from edgezo_runtime.engine.sessions import ENVIRONMENT

    ort = import_onnxruntime()
    seen: list[str] = []

    class Options(ort.SessionOptions):  # type: ignore[misc]
        def add_session_config_entry(self, key: str, value: str) -> None:
            seen.append(f"{key}={value}")
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(ort, "SessionOptions", Options)
    monkeypatch.setattr("edgezo_runtime.engine.sessions.check_onnx", lambda content, where: None)
    with pytest.raises(BundleError, match="cannot load"):
        ENVIRONMENT.open(Bundle.open(bundle), "graphs/prologue.onnx")
    assert "session.load_model_format=ONNX" in seen


def test_every_session_is_told_its_format() -> None:
    root = Path(__file__).parents[2]
    for package in ("edgezo", "export/edgezo_export", "runtime/edgezo_runtime"):
        for file in (root / package).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            made = text.count(".SessionOptions()")
            assert text.count('"session.load_model_format", "ONNX"') == made, file
            assert text.count(".InferenceSession(") == made, file


def test_graphs_in_graphs_end() -> None:
    content = graph(node("Add"))
    for _ in range(200):
        content = graph(branch(content))
    with pytest.raises(BundleError, match="deeper than"):
        check_onnx(model(content), "graphs/x.onnx")


def test_no_code_of_strangers_is_run() -> None:
    """No pickle and nothing that evaluates text, in any of the three packages; but for the file
    of the user's own that --reward names."""
    root = Path(__file__).parents[2]
    known = re.compile(
        r"import pickle|pickle\.|allow_pickle|torch\.load\(|(?<!\.)\beval\(|\bexec\(|"
        r"trust_remote_code=True"
    )
    files = [
        file
        for package in ("edgezo", "export/edgezo_export", "runtime/edgezo_runtime")
        for file in (root / package).rglob("*.py")
        if file.name != "reward_file.py"
    ]
    assert len(files) > 100
    found = [
        f"{file.name}: {line.strip()}"
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if known.search(line)
    ]
    assert not found


def test_nothing_is_fetched(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    opened = Bundle.open(bundle, verify=True)
    assert opened.trainables()
    with pytest.raises(BundleError):  # its tokenizer is an empty object
        TextTokenizer.open(opened.root, opened.manifest.tokenizer)
    assert ChatTemplate(byte_like(byte_tokenizer(), "{{ 1 }}")).render(MESSAGES, "row 1") == "1"
