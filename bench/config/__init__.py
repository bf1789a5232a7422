"""What an experiment is: suites, their schema and how they are read."""
