"""Measuring pollution: the judge of the tiny world, measures with intervals, reports, and the comparison of recipes."""
