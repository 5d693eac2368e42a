"""Meaning: what a feature group is, whether a registry is right, and what `apply` does with it."""
