"""`edgezo report`: its options, and the files it writes.

What a report says is in `edgezo.report`.
"""
