"""Passes over the blocks of a bundle, forward and back, within the memory that there is.

It must not know journals, generated text or tuning runs: it is given trainables and a batch, and
returns scores, hidden states and gradients.
"""
