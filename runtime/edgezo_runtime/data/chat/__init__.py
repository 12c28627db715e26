"""Owns chat templates: a sandbox for Jinja templates of models, with limits on work and text.

Must not know rows, examples or files: it turns messages into text and finds the assistant's spans.
"""
