"""Adapter files: edgezo's own, and those of PEFT, mlx-lm and onnxruntime, read and written.

It must not know how adapters are trained, evaluated or served: it turns the tensors of a bundle
into files, and files into tensors.
"""
