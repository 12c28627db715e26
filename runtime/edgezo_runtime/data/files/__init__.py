"""Data files and folders of them, in the formats that people have, as rows with their places.

Knows what a row is, and nothing of what it says.
"""
