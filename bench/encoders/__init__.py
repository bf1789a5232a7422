"""What every method hands to every task."""
