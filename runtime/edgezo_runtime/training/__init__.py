"""A tuning run: its layout and state, the evaluation of its steps, its log and the training loop.

It takes steps and resumes them from the journal. It must not know memory budgets, event streams,
apps or the command line: they are above it, and call it.
"""
