"""Engines: the same cells on one machine or many."""
