"""A tuning run: its layout and state, the evaluation of its steps, its log and the training loop.

It takes steps, resumes them from the journal, and passes on the memory limit that it is told. It
must not plan memory, nor know event streams, apps or the command line, which call it.
"""
