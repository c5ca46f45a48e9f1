"""From portraits and captions to batches: custom sets, prompts, pre-encoded examples, and the batch of each step."""
