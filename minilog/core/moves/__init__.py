"""Moves: a partition's replicas are changed to another set.

Pure functions on a partition's state: ``moving.py`` says what a state with a move in it means, and
when the move is complete. Shared by the controller, which decides, and by the partition's leader,
which asks for the last step.
"""
