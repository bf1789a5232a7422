"""Parts of tasks: features, linear probe, networks to fine-tune."""
