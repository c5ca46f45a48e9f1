"""Training: recipes, the trainer, run folders that survive a kill, and export."""
