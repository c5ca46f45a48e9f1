"""What a training step costs: time, measured; memory, counted."""
