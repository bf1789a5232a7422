"""Tasks: one file is one way to score an encoder."""
