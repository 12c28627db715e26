"""Model code as a graph: trace it without weights, bring it into few forms, split it into layers.

It knows torch and transformers. It must not know the bundle: operators of ONNX Runtime, weights or
trainables.
"""

__all__: list[str] = []
