"""A run on disk: its identity, its folder with log and checkpoint, and the adapter that it exports."""
