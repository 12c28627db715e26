"""What parsers once did with hostile files, and do no more. Each test names what happened."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.adapter import load_adapter
from edgezo_runtime.bundle import Bundle
from edgezo_runtime.chat import ChatTemplate
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.errors import BundleError, DataError, EdgezoError, RunFileError, UsageError
from edgezo_runtime.journal import MAX_BODY, JournalHeader, read_journal
from edgezo_runtime.onnx_file import check_onnx
from edgezo_runtime.peft_content import peft_content
from edgezo_runtime.rules.adam import Adam
from edgezo_runtime.snapshot import Snapshot, load_snapshot, save_snapshot
from edgezo_runtime.step_record import StepRecord, pack_blocks, pack_count
from edgezo_runtime.template import Template
from edgezo_runtime.tensor_file import write_tensors
from edgezo_runtime.tensor_header import TensorHeaderError, read_tensor_header
from edgezo_runtime.tokenizer import TextTokenizer
from edgezo_runtime.typed_json import JsonShapeError, parse_object
from tests.hostile.onnx_bytes import VALID, branch, field, graph, model, node, opset, tensor, varint
from tests.hostile.targets import byte_like
from tests.runtime.tiny_bundle import write_bundle
from tests.runtime.tiny_tokenizer import byte_tokenizer

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


# --- bundles ---


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
        (("graphs", "blocks", 0, "inputs", 0, "name", "odd"), "nothing is known"),  # KeyError
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


@pytest.mark.parametrize("length", [2**63, 2**40, 17, 100 << 20])
def test_a_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    (tmp_path / "t").write_bytes(struct.pack("<Q", length) + b"{}" + bytes(8))
    with pytest.raises(TensorHeaderError, match="a header of"):
        read_tensor_header(tmp_path / "t")


# --- graphs ---


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


def test_graphs_in_graphs_end() -> None:
    content = graph(node("Add"))
    for _ in range(200):
        content = graph(branch(content))
    with pytest.raises(BundleError, match="deeper than"):
        check_onnx(model(content), "graphs/x.onnx")


# --- runs ---


def _journal(path: Path, *bodies: bytes, meta: bytes = b"{}") -> Path:
    data = struct.pack("<8sII", b"\x89EZJ\r\n\x1a\n", 1, len(meta)) + meta
    data += struct.pack("<I", zlib.crc32(data))
    for body in bodies:
        crc = zlib.crc32(body, zlib.crc32(struct.pack("<I", len(body))))
        data += struct.pack("<BII", 0xE2, len(body), crc) + body
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "meta", [b"[1]", b"3", b"not json", b"\xff", b'{"a": NaN}', b"[" * 50_000, b'{"a":1,"a":2}']
)
def test_a_journal_header_that_is_no_object(tmp_path: Path, meta: bytes) -> None:
    """A right checksum brought JSONDecodeError, TypeError or RecursionError."""
    with pytest.raises(RunFileError, match="header that is no run's"):
        read_journal(_journal(tmp_path / "j", meta=meta))


def test_a_whole_record_without_a_beginning(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="no record at byte"):
        read_journal(_journal(tmp_path / "j", b"\x80"))


def _record(probes: int, rows: int, more: bytes = b"") -> bytes:
    start = struct.pack("<QQf", 0, 0, 0.1) + pack_blocks((0,))
    return start + pack_count(probes) + pack_count(rows) + more


@pytest.mark.parametrize(
    "data",
    [
        _record(2**40, 1),
        _record(2**63, 2**63),
        _record(2**63, 0),  # OverflowError in numpy
        _record(2**40, 0),  # an array of 2**40 empty rows, gone through row by row
        _record(1, 1, struct.pack("<f", float("nan"))),
        struct.pack("<QQf", 0, 0, 0.1) + pack_count(1) + pack_count(0) + pack_count(2**20),
        struct.pack("<QQf", 0, 0, 0.1) + pack_count(2**60),
        struct.pack("<QQf", 0, 0, 0.1) + b"\xff" * 9 + b"\x7f",
        struct.pack("<QQf", 0, 0, 0.1) + b"\x80\x00",
        b"",
    ],
)
def test_records_that_claim_too_much(data: bytes) -> None:
    with pytest.raises(RunFileError, match="not a step record"):
        StepRecord.unpack(data)


def test_a_tail_that_looks_like_records_all_over(tmp_path: Path) -> None:
    """Every marker cost a checksum of up to 64 MiB: hours for a file of some megabytes."""
    path = _journal(tmp_path / "j")
    frame = struct.pack("<BII", 0xE2, MAX_BODY, 0) + b"\0" + struct.pack("<Q", 5)
    with path.open("ab") as file:
        file.write(b"?" + frame * 20_000)
        file.truncate(path.stat().st_size + MAX_BODY)  # a hole, no disk
    with pytest.raises(RunFileError, match="looks like records"):
        read_journal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_journal_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "j")
    with pytest.raises(RunFileError, match="is not a file"):
        read_journal(tmp_path / "j")


def test_a_journal_that_asks_for_no_end_of_probes() -> None:
    """A million directions a step were made before the first loss was looked for."""
    config = TuneConfig.of("n-spsa", num_directions=2**60)
    with pytest.raises(UsageError, match="num-directions"):
        config.check()
    for field_name in ("steps", "horizon", "batch_size"):
        with pytest.raises(UsageError, match=r"1000000000000 or less"):
            TuneConfig(**{field_name: 10**400}).check()
    with pytest.raises(UsageError, match="whole number"):
        TuneConfig(schedule="random:" + "9" * 5000).check()


def _snapshot(path: Path, change: Any, tensors: dict[str, Any] | None = None) -> Path:
    save_snapshot(path, Snapshot({"a": np.ones(2, np.float32)}, {}, 1, "d"))
    arrays = tensors or {"theta/a": np.ones(2, np.float32)}
    meta = {"format": "edgezo-snapshot", "version": 1, "step": 1, "digest": "d", "counters": {}}
    text = change if isinstance(change, str) else json.dumps(meta | change)
    from edgezo_runtime.snapshot import _checksum

    write_tensors(path, arrays, {"edgezo": text, "crc32": _checksum(text, arrays)})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "-1 steps"),
        ({"step": "x"}, "step: expected int"),
        ({"counters": 3}, "counters: expected"),
        ({"more": 3}, "unknown key"),
        ("[" * 50_000, "is not an edgezo snapshot"),  # RecursionError
    ],
)
def test_snapshots_with_a_right_checksum(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(RunFileError, match=message):
        load_snapshot(_snapshot(tmp_path / "s", change))


@pytest.mark.parametrize(
    "tensors",
    [
        {"theta/a": np.ones(2, np.float64)},
        {"slot/a/m": np.ones(2, np.float32)},
        {"slot/a": np.ones(2, np.float32)},
        {"other/a": np.ones(2, np.float32)},
        {"theta/": np.ones(2, np.float32)},
    ],
)
def test_tensors_that_no_snapshot_has(tmp_path: Path, tensors: dict[str, Any]) -> None:
    with pytest.raises(RunFileError, match="snapshot"):
        load_snapshot(_snapshot(tmp_path / "s", {}, tensors))


def test_powers_that_no_run_reaches() -> None:
    """A square root of a negative number: ValueError."""
    theta = np.ones(2, np.float32)
    slot = Adam().init(theta) or {}
    slot["powers"][:] = 3
    with pytest.raises(RunFileError, match="those of no run"):
        Adam().apply(theta, theta, slot, 0, 0.1)


def _adapter(path: Path, scheme: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Path:
    info = {
        "version": 2,
        "created_by": "edgezo",
        "model": "m",
        "architecture": "llama",
        "task": "causal-lm",
        "bundle_sha256": "0",
        "scheme": {"rank": 2, "alpha": 2.0, **scheme},
        "complete": True,
        "steps": 1,
    }
    tensors = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    write_tensors(path, tensors, {"edgezo_adapter": json.dumps(info)})
    return path


@pytest.mark.parametrize(
    ("scheme", "shapes", "message"),
    [
        ({"kind": "lora", "rank": 10**400}, {"m.lora_A": (2, 3), "m.lora_B": (3, 2)}, "rank"),
        ({"kind": "lora"}, {"m.lora_A": (3, 3), "m.lora_B": (3, 2)}, "rank 3, scheme has 2"),
        ({"kind": "lora"}, {"m.lora_A_1": (2, 3), "m.lora_A": (2, 3)}, "unexpected tensor"),
        (  # B R: ValueError in the export to PEFT
            {"kind": "lora-xs"},
            {"m.lora_A": (2, 3), "m.lora_R": (2, 9), "m.lora_B": (3, 2)},
            "not square",
        ),
        ({"kind": "prompt", "tokens": [1]}, {"m.prompt_base": (1, 4)}, "without"),
        (
            {"kind": "prompt", "tokens": [1]},
            {"m.prompt": (1, 4), "n.prompt": (1, 4)},
            "prompts of 2 modules",
        ),
        ({"kind": "prompt", "tokens": [1]}, {"m.prompt": (3, 4)}, "3 virtual tokens"),
        ({"kind": "prefix", "tokens": [1]}, {"l.0.prefix_key": (1, 1, 4)}, "without"),
        (
            {"kind": "prefix", "tokens": [1]},
            {"l.x.prefix_key": (1, 1, 4), "l.x.prefix_value": (1, 1, 4)},
            "is no block",
        ),
        ({"kind": "ia3"}, {"a.gain": (2,), "a.input_gain": (2,)}, "and of its output"),
    ],
)
def test_adapters_that_broke_their_reader(
    tmp_path: Path, scheme: dict[str, Any], shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(RunFileError, match=message):
        peft_content(load_adapter(_adapter(tmp_path / "a", scheme, shapes)))


def test_an_adapter_of_numbers_that_are_not_finite(tmp_path: Path) -> None:
    path = _adapter(tmp_path / "a", {"kind": "ia3"}, {"a.gain": (2,)})
    data = path.read_bytes()
    path.write_bytes(data[:-4] + struct.pack("<f", float("nan")))
    with pytest.raises(RunFileError, match="not finite"):
        load_adapter(path)


# --- text ---


def _open_tokenizer(folder: Path, change: Any, **options: Any) -> TextTokenizer:
    from edgezo_runtime.manifest import TokenizerInfo

    content = json.loads(byte_tokenizer().core.to_str())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    info = TokenizerInfo("tokenizer.json", None, None, (2,), 0, None, None, False)
    return TextTokenizer.open(folder, info, **options)


def test_merges_without_their_prefix(tmp_path: Path) -> None:
    """The tokenizers package cut bytes off that were not there: a panic, or the process ended."""

    def change(content: dict[str, Any]) -> None:
        vocab = {"hx": 0, "x\u00e9": 1, "hx\u00e9": 2}
        merges = [["hx", "x\u00e9"]]
        content["model"] |= {
            "continuing_subword_prefix": "\u00e9",
            "vocab": vocab,
            "merges": merges,
        }

    with pytest.raises(BundleError, match="merge"):
        _open_tokenizer(tmp_path, change)


def test_a_key_that_is_spelt_in_escapes(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"

    def change(content: dict[str, Any]) -> None:
        content["model"] |= {
            "continuing_subword_prefix": "abcdef",
            "vocab": {"h": 0, "e": 1},
            "merges": [["h", "e"]],
        }

    with pytest.raises(BundleError, match="merge"):
        _open_tokenizer(tmp_path, change)
    text = path.read_text().replace("continuing_subword_prefix", r"c\u006fntinuing_subword_prefix")
    from edgezo_runtime.tokenizer import check_tokenizer

    with pytest.raises(BundleError, match="merge"):
        check_tokenizer(text, "tokenizer.json")


def test_a_tokenizer_that_panics_when_it_is_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A panic of the package is no Exception, and went through everything."""

    def change(content: dict[str, Any]) -> None:
        content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}

    tokenizer = _open_tokenizer(tmp_path, change)
    with pytest.raises(BundleError, match="cannot read 'abc'"):
        tokenizer.encode("abc", add_special=False)
    assert "panicked" in capfd.readouterr().err


def test_tokens_that_the_model_does_not_have(tmp_path: Path) -> None:
    """2**32 - 1 was an OverflowError when the rows were stored."""

    def change(content: dict[str, Any]) -> None:
        content["model"]["vocab"]["z"] = 2**32 - 1

    for options in ({}, {"vocab_size": 300}):
        with pytest.raises(BundleError, match="makes the token"):
            _open_tokenizer(tmp_path, change, **options).encode("z", add_special=False)
    assert _open_tokenizer(tmp_path, change).encode("a", add_special=False)


def test_half_of_a_surrogate_pair_in_a_text() -> None:
    with pytest.raises(BundleError, match="cannot read"):
        byte_tokenizer().encode("\ud800", add_special=False)
    with pytest.raises(UsageError, match="surrogate"):
        Template.parse("{a} \ud800")


HEAVY = (
    "{{ 'a' * 10 ** 11 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 7 ** 99999999 }}",
    "{{ [1] * 10 ** 10 }}",
    "{{ 'a'.center(10 ** 10) }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ 'a' | indent(10000000000, true) }}",
    "{{ 'a'.ljust(9999999999) }}",
    "{{ 'a\\t'.expandtabs(9999999999) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{w}}'.format(1, w=1000000000) }}",
    "{{ [1] | batch(10000000000, 'x') | list }}",
    "{{ [1] | tojson(indent=10000000000) }}",
    "{{ ('a' * 1000).replace('a', 'b' * 1000000) }}",
    "{{ 'abc' * 1000000 | int | string ~ 'x' * 100000000 }}",
    "{{ lipsum(n=1000000) }}",
    "{{ ((['a' * 1000000]) * 1000) | join }}",
    "{{ ''.join(['a' * 1000000] * 1000) }}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}"
    "{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
    "{{ n.s }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
)


@pytest.mark.parametrize("source", HEAVY)
def test_templates_that_never_end(source: str) -> None:
    """Each took all memory, or more time than there is."""
    chat = ChatTemplate(byte_like(byte_tokenizer(), source))
    with pytest.raises(DataError, match="the chat template refuses"):
        chat.render(MESSAGES, "row 1")


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['sys'] }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ ('{0.__class__}' | attr('format'))('') }}",
        "{{ ''|attr('__class__')|attr('__mro__') }}",
        "{{ namespace.__init__ }}",
        "{{ [].append(1) }}",
        "{{ messages.clear() }}",
        "{{ messages[0].update({'role': 'x'}) }}",
    ],
)
def test_templates_cannot_reach_attributes(source: str) -> None:
    """What a sandbox refuses is an error, or nothing at all."""
    chat = ChatTemplate(byte_like(byte_tokenizer(), source))
    try:
        text = chat.render(MESSAGES, "row 1")
    except DataError:
        return
    assert text == ""
    assert messages_are_whole()


def messages_are_whole() -> bool:
    return [message["role"] for message in MESSAGES] == ["user", "assistant"]


@pytest.mark.parametrize(
    "source",
    [
        "{% include 'x' %}",
        "{% import '/etc/passwd' as x %}",
        "{% extends 'x' %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if 1 %}" * 500 + "{% endif %}" * 500,
        "{{ " + "9" * 5000 + " }}",
        "{{ 'a" + "\x00" + "' }}",
        "{{ 1 | nosuch }}",
    ],
)
def test_templates_that_do_not_compile_or_reach_files(source: str) -> None:
    try:
        ChatTemplate(byte_like(byte_tokenizer(), source)).render(MESSAGES, "row 1")
    except EdgezoError:
        return
    assert "\x00" in source


def test_a_prompt_template_of_a_megabyte() -> None:
    """It was copied once a character."""
    with pytest.raises(UsageError, match="is longer than"):
        Template.parse("{a}" + "x" * 2**20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "\\ud800"}', "surrogate"),
        ('{"a": ' + "[" * 70 + "]" * 70 + "}", "nested too deeply"),
        ('{"a": "' + "[" * 70 + '"}', None),
        ('{"a": "\\ud83d\\ude00"}', None),
    ],
)
def test_json_of_strangers(text: str, message: str | None) -> None:
    if message is None:
        assert parse_object(text)
        return
    with pytest.raises(JsonShapeError, match=message):
        parse_object(text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", '{"lr": NaN}', "not JSON"),
        ("c.json", '{"lr": 1, "lr": 2}', "repeated key"),
        ("c.json", '{"method": "a\\u0000b"}', "characters that no setting has"),
        ("c.json", '{"steps": 1' + "0" * 4000 + "}", "expected a smaller number"),
        ("c.json", '{"steps": ' + "[" * 900 + "]" * 900 + "}", "nested too deeply"),
        ("c.toml", "lr = " + "[" * 90_000, "not TOML"),
        ("c.toml", "steps = 1979-05-27", "expected a whole number"),
        ("c.json", " " * (2**20 + 1), "no file of settings"),
    ],
)
def test_settings_of_strangers(tmp_path: Path, name: str, text: str, message: str) -> None:
    from edgezo.cli.config_file import read_config

    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path / name, (TuneConfig,))


def test_no_code_of_strangers_is_run() -> None:
    """No pickle and nothing that evaluates text, in any of the three packages."""
    root = Path(__file__).parents[2]
    known = re.compile(
        r"\bpickle\b|allow_pickle|torch\.load\(|\beval\(|\bexec\(|trust_remote_code=True"
    )
    files = [
        file
        for package in ("edgezo", "export/edgezo_export", "runtime/edgezo_runtime")
        for file in (root / package).rglob("*.py")
    ]
    assert len(files) > 100
    found = [
        f"{file.name}: {line.strip()}"
        for file in files
        for line in file.read_text(encoding="utf-8").splitlines()
        if known.search(line) and "model.eval()" not in line
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


def test_headers_of_journals_stay_as_they_were() -> None:
    """What is refused now was never written."""
    text = JournalHeader({"b": [1, 2.5, None], "a": "\u00fc"}).pack()
    assert parse_object(text[16:-4].decode("ascii")) == {"b": [1, 2.5, None], "a": "\u00fc"}


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ loop.index0 }}/{{ loop.length }}{{ loop.last }}"
        "{{ loop.revindex }}{{ loop.previtem.role if loop.previtem }}{{ loop.nextitem is defined }}"
        "{% else %}-{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ loop.length }}{{ m.content }}{% endfor %}",
        "{% for k, v in messages[0].items() %}{{ k ~ '=' ~ v ~ 1 ~ none }}{% endfor %}",
        "{% for c in 'abc' recursive %}{{ c }}{{ loop('de') if c == 'a' and loop.depth < 2 }}"
        "{% endfor %}",
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}"
        "{% endfor %}",
        "{{ messages | map(attribute='content') | join(', ') }}{{ messages | length }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | list }}",
        "{% set x = namespace(n=0) %}{% for m in messages %}{% set x.n = x.n + 1 %}{% endfor %}"
        "{{ x.n }}{{ 2 ** 10 }}{{ 7 % 4 }}{{ 'a' * 3 }}{{ [1] + [2] }}{{ '%s-%02d' % ('a', 3) }}",
        "{{ 'a\nb' | indent(4) }}{{ 'x'.center(9) }}{{ '{:>5}'.format('a') }}"
        "{{ 'a,b'.split(',') }}",
        "{% macro f(m) %}<{{ m.role }}>{{ caller() if caller }}{% endmacro %}"
        "{% for m in messages %}{{ f(m) }}{% endfor %}{% call f(messages[0]) %}z{% endcall %}",
        "{% filter upper %}abc{% endfilter %}{% set y %}q{{ 1 }}{% endset %}{{ y }}"
        "{{ '' | default('d', true) }}",
        "{{ messages[-1]['content'].replace('e', 'EE') | trim | upper }}{{ '-'.join(['a', 'b']) }}",
    ],
)
def test_templates_that_behave_are_as_they_were(source: str) -> None:
    """Against jinja2's own sandbox."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    expected = plain.from_string(source).render(messages=MESSAGES)
    chat = ChatTemplate(byte_like(byte_tokenizer(), source))
    assert chat.render(MESSAGES, "row 1") == expected
