"""Parts of methods: heads, color bins, views, discriminators, averaged teachers."""
