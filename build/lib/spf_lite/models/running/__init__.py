"""A model at work: sampling, and what saves time and memory."""
