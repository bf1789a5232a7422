"""Confidence intervals: resampling, seeds, and a cache of resampled scores."""
