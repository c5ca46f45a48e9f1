"""The error of models and adapters."""

from __future__ import annotations


class BackboneError(ValueError):
    """A model or adapter that cannot be loaded or used; the message says what was found and what is supported."""
