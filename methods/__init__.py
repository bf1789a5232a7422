"""Methods: one file is one way to load_or_pretrain a pretrained encoder."""
