"""`edgezo eval`: its settings and the ways to score rows.

Knows nothing of runs.
"""
