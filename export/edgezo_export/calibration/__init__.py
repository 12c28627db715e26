"""Calibration: what the linear layers of a model read for a few rows, and codes made with it.

It knows traces, graphs and quantization. It must not know files of a bundle.
"""

__all__: list[str] = []
