"""Where graphs run: the processor, or a GPU by one of onnxruntime's providers.

The engine sees one protocol (`device.Device`). It must not know bundles beyond their graphs and
weights, nor passes: it opens sessions, moves values, holds weights, and counts bytes.
"""
