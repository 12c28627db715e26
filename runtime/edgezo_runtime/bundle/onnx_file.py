"""Checks the bytes of an ONNX file before onnxruntime sees any of them.

A graph of a bundle has nodes with operators of the standard and of onnxruntime, and constants with
their values in the file. Everything else is refused: operators of other domains, functions, and
data in other files. The only loop is `Scan`, over inputs of fixed length and not nested, so every
graph ends soon. The reader knows just enough of protobuf's wire format for this. It refuses
encodings that differ from the one that all writers use.

References:
    https://protobuf.dev/programming-guides/encoding, and onnx.proto of ONNX 1.17 for field numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from edgezo_runtime.errors import BundleError

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Operator sets that a graph may use."""

MAX_BYTES = 1 << 28
"""Largest file; exported graphs have kilobytes, as their weights are inputs."""

_ORT_MARK = slice(4, 8)
"""Place of the mark of onnxruntime's own format; a file can be of both formats at once."""

_MAX_FIELDS = 1 << 21
_MAX_ELEMENTS = 1 << 31
_MAX_DEPTH = 8
_REFUSED_OPERATORS = {
    "EPContext": "names a file",
    **dict.fromkeys(("Loop", "SequenceMap"), "repeats a graph"),
    **dict.fromkeys(
        ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"), "repeats a graph"
    ),
}
"""Operators of allowed domains that are refused, with the reason."""

_REPEATING = "Scan"
_BRANCHING = frozenset({"If", _REPEATING})
"""Operators that may have inner graphs; the exporter writes no others."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Field numbers of onnx.proto, by message.
_GRAPH, _OPSET, _TRAINING, _FUNCTION = 7, 8, 20, 25  # ModelProto
_OPSET_DOMAIN = 1  # OperatorSetIdProto
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # GraphProto
_INPUT, _OUTPUT, _NAME, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 2, 3, 4, 5, 7  # NodeProto
_TENSOR, _INNER, _TENSORS, _INNERS, _SPARSES = 5, 6, 10, 11, (22, 23)  # AttributeProto
_DIMS, _TENSOR_NAME, _EXTERNAL, _LOCATION = 1, 8, 13, 14  # TensorProto

_Span = tuple[int, int]


class NodeEnds(NamedTuple):
    """A node of a graph: what it is, what it reads and what it makes."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class _MalformedError(ValueError):
    """Bytes that are not protobuf, or a field of the wrong type."""


def check_onnx(data: bytes, where: str) -> None:
    """Refuse a file that cannot be a graph of a bundle.

    Args:
        data: the file.
        where: its path, for the message.
    Raises:
        BundleError: the file is not ONNX, is too large, or has parts that no graph of a bundle has.
    """
    if len(data) > MAX_BYTES:
        raise BundleError(f"{where}: {len(data)} bytes are too many for a graph; {_REMEDY}")
    if data[_ORT_MARK] == b"ORTM":
        raise BundleError(f"{where}: of onnxruntime's own format, not ONNX; {_REMEDY}")
    try:
        _check_model(_Reader(data))
    except _MalformedError as error:
        raise BundleError(f"{where}: not an ONNX graph of a bundle: {error}; {_REMEDY}") from error


def node_ends(data: bytes) -> tuple[list[NodeEnds], list[str]]:
    """The nodes of a graph in their order, without those of inner graphs; names of its constants.

    Args:
        data: a file that `check_onnx` took.
    """
    reader = _Reader(data)
    nodes: list[NodeEnds] = []
    constants: list[str] = []
    for number, kind, value in reader.fields(0, len(data)):
        if number != _GRAPH:
            continue
        for own, own_kind, part in reader.fields(*_span(number, kind, value)):
            if own == _NODE:
                nodes.append(_ends(reader, _span(own, own_kind, part)))
            elif own == _INITIALIZER:
                texts = _texts(reader, _span(own, own_kind, part), {_TENSOR_NAME})
                constants += texts[_TENSOR_NAME]
    return nodes, constants


def _ends(reader: _Reader, span: _Span) -> NodeEnds:
    texts = _texts(reader, span, {_INPUT, _OUTPUT, _NAME, _OPERATOR})
    name, operator = ("".join(texts[number]) for number in (_NAME, _OPERATOR))
    return NodeEnds(name, operator, tuple(texts[_INPUT]), tuple(texts[_OUTPUT]))


def _texts(reader: _Reader, span: _Span, wanted: set[int]) -> dict[int, list[str]]:
    """The names in some fields of a message, by the number of the field."""
    found: dict[int, list[str]] = {number: [] for number in wanted}
    for number, kind, value in reader.fields(*span):
        if number in wanted:
            found[number].append(reader.text(_span(number, kind, value)))
    return found


_REMEDY = "run 'edgezo export --force', and use only bundles from sources that you trust"


class _Reader:
    """Reads the fields of messages; limits their number, so that small files cannot take long."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = _MAX_FIELDS

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int | _Span]]:
        """Yield number, wire type and value of each field; bytes are given as (start, end)."""
        position = start
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise _MalformedError(f"more than {_MAX_FIELDS} fields")
            tag, position = self.integer(position, end)
            number, kind = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise _MalformedError(f"field number {number} at byte {position}")
            value: int | _Span
            if kind == _VARINT:
                value, position = self.integer(position, end)
            elif kind == _BYTES:
                length, position = self.integer(position, end)
                value = position, position + length
                position += length
            elif kind in (_FIXED64, _FIXED32):
                value = 0
                position += 8 if kind == _FIXED64 else 4
            else:
                raise _MalformedError(f"wire type {kind} at byte {position}")
            if position > end:
                raise _MalformedError(f"field {number} goes beyond its message, at byte {end}")
            yield number, kind, value

    def text(self, span: _Span) -> str:
        """A name."""
        try:
            return self.data[span[0] : span[1]].decode("ascii")
        except UnicodeDecodeError:
            raise _MalformedError(f"a name that is not ASCII, at byte {span[0]}") from None

    def integer(self, position: int, end: int) -> tuple[int, int]:
        """Read an integer in its shortest form; programs differ in how they read other forms."""
        value = shift = 0
        while position < end and shift < 70:
            octet = self.data[position]
            position += 1
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                if value >= 1 << 64 or (not octet and shift):
                    break
                return value, position
            shift += 7
        raise _MalformedError(f"no integer at byte {position}")


def _span(number: int, kind: int, value: int | _Span) -> _Span:
    if kind != _BYTES or isinstance(value, int):
        raise _MalformedError(f"field {number} has wire type {kind}")
    return value


def _check_model(reader: _Reader) -> None:
    graphs = 0
    for number, kind, value in reader.fields(0, len(reader.data)):
        if number == _GRAPH:
            graphs += 1
            _check_graph(reader, _span(number, kind, value))
        elif number == _OPSET:
            for own, own_kind, name in reader.fields(*_span(number, kind, value)):
                if own == _OPSET_DOMAIN:
                    _check_domain(reader.text(_span(own, own_kind, name)), "operator set")
        elif number == _FUNCTION:
            raise _MalformedError("it defines functions of its own")
        elif number == _TRAINING:
            raise _MalformedError("it holds graphs for training")
    if graphs != 1:
        raise _MalformedError(f"{graphs} graphs in it")


def _check_graph(reader: _Reader, span: _Span, within: tuple[str, ...] = ()) -> None:
    """Check a graph within the nodes of these operators, the outermost first."""
    if len(within) > _MAX_DEPTH:
        raise _MalformedError(f"graphs in graphs, deeper than {_MAX_DEPTH}")
    for number, kind, value in reader.fields(*span):
        if number == _NODE:
            _check_node(reader, _span(number, kind, value), within)
        elif number == _INITIALIZER:
            _check_tensor(reader, _span(number, kind, value))
        elif number == _SPARSE:
            raise _MalformedError("it has a sparse constant")


def _check_node(reader: _Reader, span: _Span, within: tuple[str, ...]) -> None:
    names: dict[int, str] = {}
    attributes: list[_Span] = []
    for number, kind, value in reader.fields(*span):
        if number in (_OPERATOR, _DOMAIN):
            if number in names:
                raise _MalformedError(
                    f"a node with two operator types or domains, at byte {span[0]}"
                )
            names[number] = reader.text(_span(number, kind, value))
        elif number == _ATTRIBUTE:
            attributes.append(_span(number, kind, value))
    operator = names.get(_OPERATOR, "")
    if operator in _REFUSED_OPERATORS:
        raise _MalformedError(f"operator {operator} {_REFUSED_OPERATORS[operator]}")
    # Eight nested loops of ten turns would be 10**8 turns.
    if operator == _REPEATING and _REPEATING in within:
        raise _MalformedError(f"operator {operator} within another one")
    _check_domain(names.get(_DOMAIN, ""), f"operator {operator[:80]!r}")
    for attribute in attributes:
        _check_attribute(reader, attribute, (*within, operator))


def _check_attribute(reader: _Reader, span: _Span, within: tuple[str, ...]) -> None:
    for number, kind, value in reader.fields(*span):
        if number in (_TENSOR, _TENSORS):
            _check_tensor(reader, _span(number, kind, value))
        elif number in (_INNER, _INNERS):
            if within[-1] not in _BRANCHING:
                raise _MalformedError(f"operator {within[-1][:80]!r} with a graph of its own")
            _check_graph(reader, _span(number, kind, value), within)
        elif number in _SPARSES:
            raise _MalformedError("it has a sparse constant")


def _check_tensor(reader: _Reader, span: _Span) -> None:
    elements = 1
    for number, kind, value in reader.fields(*span):
        if number == _DIMS:
            for dim in _integers(reader, kind, value):
                elements *= dim
                # An element takes half a byte at least.
                if dim > _MAX_ELEMENTS or elements > min(_MAX_ELEMENTS, 2 * (span[1] - span[0])):
                    raise _MalformedError(f"a constant that claims {elements} elements or more")
        elif number == _EXTERNAL:
            raise _MalformedError("a constant lies in another file")
        elif number == _LOCATION and value != 0:
            raise _MalformedError("a constant lies in another place")


def _integers(reader: _Reader, kind: int, value: Any) -> Iterator[int]:
    """Yield the integers of a repeated field, packed or not."""
    if kind == _VARINT:
        yield value
        return
    position, end = _span(_DIMS, kind, value)
    while position < end:
        number, position = reader.integer(position, end)
        yield number


def _check_domain(domain: str, of: str) -> None:
    if domain not in DOMAINS:
        raise _MalformedError(
            f"{of} of the domain {domain[:80]!r}; bundles may use only ONNX and com.microsoft"
        )
