"""Reports of runs: one page, a picture, Markdown or JSON, from what run folders hold.

Reads runs and draws; it writes no file, and knows no verb.
"""
