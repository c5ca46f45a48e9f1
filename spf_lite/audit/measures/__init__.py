"""Measures of an audit: of pictures, by networks, of faces, and where the target may act."""
