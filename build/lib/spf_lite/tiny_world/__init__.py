"""The tiny world: portraits whose every attribute is known, their rendering, and confounded custom sets."""
