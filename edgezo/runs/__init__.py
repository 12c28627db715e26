"""Run folders as a reader sees them: settings, steps, evaluations, results and state.

Writes nothing but `rows.json`; takes no step, and knows no verb.
"""
