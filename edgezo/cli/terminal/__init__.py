"""The terminal: results, notes, warnings, progress and signals.

Knows no verb.
"""
