"""ONNX files written byte by byte: what no writer of ONNX would write as well."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """An integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """A field of a message: an integer, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def opset(domain: str = "", version: int = 21) -> bytes:
    """OperatorSetIdProto, as a field of a model."""
    return field(8, field(1, domain) + field(2, version))


def node(operator: str, domain: str = "", *attributes: bytes) -> bytes:
    """NodeProto, as a field of a graph."""
    parts = [field(1, "x"), field(2, "y"), field(4, operator)]
    parts += [field(7, domain)] if domain else []
    return field(1, b"".join(parts + [field(5, attribute) for attribute in attributes]))


def tensor(dims: tuple[int, ...], raw: bytes, *more: bytes) -> bytes:
    """TensorProto of float32."""
    sizes = b"".join(field(1, dim) for dim in dims)
    return sizes + field(2, 1) + field(8, "w") + field(9, raw) + b"".join(more)


def graph(*fields: bytes) -> bytes:
    """GraphProto."""
    return b"".join(fields) + field(2, "g")


def model(content: bytes, *fields: bytes) -> bytes:
    """ModelProto."""
    return field(1, 10) + field(7, content) + opset() + b"".join(fields)


def branch(content: bytes) -> bytes:
    """A node with a graph inside."""
    return node("If", "", field(1, "then_branch") + field(6, content) + field(20, 5))


VALID = (
    model(graph(node("Add"), node("MatMulNBits", "com.microsoft")), opset("com.microsoft", 1)),
    model(graph(branch(graph(node("Scan"))), field(5, tensor((2, 1), b"\0" * 8)))),
    model(graph(node("Constant", "", field(1, "value") + field(5, tensor((1,), b"\0" * 4))))),
)
