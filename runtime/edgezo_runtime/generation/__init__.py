"""Generation of text: prompts and tokens through an engine, cached keys and values, sampling.

It must not know tuning runs, adapter files, scores of texts or memory budgets: a caller passes the
trainable tensors and the bytes that keys and values may take.
"""
