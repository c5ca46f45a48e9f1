"""What can be wrong with a model."""

from __future__ import annotations


class BackboneError(ValueError):
    """A model or adapter that cannot be loaded or used; the message says what was found and what is supported."""
