"""`edgezo adapter`: its verbs, the export of an adapter and the proof of an export.

Knows nothing of runs but the settings in their folders.
"""
