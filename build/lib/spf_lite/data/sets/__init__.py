"""A custom set on disk: pictures, captions, and their checks."""
