"""Budgets: predicts and measures what tuning and generation take, and chooses how they run.

It reads the sizes of a run that has not started, and has it rehearse; it must not know apps, events
or what is done with a plan.
"""
