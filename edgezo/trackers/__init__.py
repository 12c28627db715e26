"""Numbers of a run in the formats of experiment trackers.

A tracker is a file, and an entry in `TRACKERS` (`tracker.py`). Each writes with the library of its
program, which is imported when the tracker is opened. Nothing leaves the machine unless the user
has told that library so.
"""
