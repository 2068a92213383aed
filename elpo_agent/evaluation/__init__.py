"""Scores of a policy on a set of tasks."""
