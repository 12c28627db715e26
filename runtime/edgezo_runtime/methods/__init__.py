"""Owns the methods of tuning: estimators, samplers, update rules, schedules and their catalogue.

Must not know engines, data or files: a method sees configurations, seeds, losses and tensors. It
imports `errors`, `config`, `noise` and the kinds of trainables in `bundle`, nothing above them.
"""
