"""The files of a run: journal, log of added examples, snapshot, header and folder.

The package owns their formats, and decides after a crash what is whole, incomplete or damaged. It
must not know how a step is computed, neither by the engine nor by the training loop.
"""
