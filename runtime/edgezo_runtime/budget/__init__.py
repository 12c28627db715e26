"""Budgets: predicts and measures what tuning and generation take, and chooses how they run.

It must not know methods, journals or the run's loop: `planned_run.py` lists all it needs of a run.
"""
