"""Stages, their identities and their store. Knows no machine learning: it moves configs, folders and records."""
