"""A tuned adapter in the formats that need the base model: merged weights, and GGUF for llama.cpp.

It knows adapter files and checkpoints. It must not know bundles, graphs or the programs that load
its files.
"""

__all__: list[str] = []
