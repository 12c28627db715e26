"""Models to export: Hugging Face ids, folders and GGUF files, with their configs and tokenizers.

It returns float32 tensors by the names of the model class. It must not know bundles, graphs or
quantization.
"""

__all__: list[str] = []
