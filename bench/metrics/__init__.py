"""Evaluators in plain numpy, for anybody's scores, boxes and label maps."""
