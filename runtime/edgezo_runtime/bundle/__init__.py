"""Bundles on disk: manifest, digests, bytes of the graphs, frozen weights and trainables.

The package owns the format of bundles and refuses every file that does not follow it. It must not
know onnxruntime, methods or data: `engine` runs the graphs, and packages above read the manifest.
"""
