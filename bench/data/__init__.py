"""Images in: datasets opened, checked, decoded and transformed."""
