"""Methods: one file is one way to obtain a pretrained encoder."""
