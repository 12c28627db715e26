"""Measures of a set of trainables: losses, classes, generated answers, agreement between programs.

It scores the tensors that it is given, and is told how much memory generated texts may take. It
must not know how trainables are perturbed, updated or journaled, and does not plan memory.
"""
