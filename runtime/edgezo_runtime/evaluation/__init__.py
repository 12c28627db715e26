"""Measures of a set of trainables: losses, classes, generated answers, agreement between programs.

It must not know how trainables are perturbed, updated or journaled, nor the memory budget: it
scores the tensors that it is given.
"""
