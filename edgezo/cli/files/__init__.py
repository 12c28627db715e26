"""Files that verbs read and write: data, outputs, and inputs that no output may replace.

Knows no verb.
"""
