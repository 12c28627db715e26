"""Gradients of graphs: the vector-Jacobian product of every operator, and the backward graphs.

It knows operators and the forward graphs of a model. It must not know how gradients are used, nor
files: it returns graphs.
"""

__all__: list[str] = []
