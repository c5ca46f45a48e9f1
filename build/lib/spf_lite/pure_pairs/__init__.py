"""Portraits that show the target and nothing else of the custom set: what stage 2 learns from in our recipe."""
