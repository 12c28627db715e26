"""Owns the path from rows of text to batches of tokens: files, templates, tokenizers, examples.

Must not know engines, losses or runs: it depends on `errors`, `config`, `noise`, `system` and the
types of `bundle` only.
"""
