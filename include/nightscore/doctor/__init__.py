"""Examining a deployment from where it runs: what is there, what is wrong, and what to do about it."""
