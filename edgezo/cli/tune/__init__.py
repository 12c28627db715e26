"""`edgezo tune`: its settings, metrics, rewards and the default bundle.

Knows nothing of the other verbs but `edgezo export`, which makes the default bundle.
"""
