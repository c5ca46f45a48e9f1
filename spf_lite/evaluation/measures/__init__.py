"""Measures of the tiny world: attributes by the judge, pictures and their parts, maps."""
