"""What data files hold, before a run reads them: tasks, classes, lengths, duplicates, proposals.

Knows no verb. What needs the model is in `zero_shot` and `lengths`.
"""
