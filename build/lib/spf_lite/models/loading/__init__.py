"""Files of models: single-file checkpoints, and what fits the method."""
