"""Registries of others: finding out what a reference means there, and fetching what it means."""
