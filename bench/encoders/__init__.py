"""Encoders: backbones with inputs and weights, which every method hands to every task."""
