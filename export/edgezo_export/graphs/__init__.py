"""The forward graphs of a bundle, one kind per file: prologue, block, scorers and logits.

It knows traces, operators and the places that schemes edit. It must not know gradients, files or
the name of any model.
"""

__all__: list[str] = []
