"""Classifiers on frozen features, every problem of a stage together."""
