"""The one training loop, and what is trained by it."""
