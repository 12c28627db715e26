"""Exported adapters in the programs they are made for: their scores with the file and without it.

It knows these programs: transformers, PEFT, mlx-lm, llama.cpp and onnxruntime. It must not know how
the files were written, nor judge the scores: `edgezo_runtime.evaluation.parity` compares them.
"""

__all__: list[str] = []
