"""Suites: the schema of an experiment, and its loader."""
