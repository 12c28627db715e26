"""Operators, one family per file: the form of ONNX Runtime, and its expansion with a derivative.

It knows how to append an operator to a graph. It must not know segments of a model or the order of
its nodes.
"""

__all__: list[str] = []
