"""The way of a run: its parts, its folder, training, evaluation, prediction, and its result."""
