"""Published data sets: where they come from, how they are placed, whether they are whole."""
