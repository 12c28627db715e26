"""`edgezo generate`: its settings, and a bundle that is ready to generate.

`edgezo eval` generates answers with it. Knows nothing of runs.
"""
