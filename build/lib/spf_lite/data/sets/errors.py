"""What goes wrong with a custom set has one name."""

from __future__ import annotations


class CustomSetError(ValueError):
    """Something is wrong with a custom set; the message names the file and, where there is one, the line."""
