"""Numbers on disk: records, their predictions, and which of them compare."""
