"""How good is a tuned model? The judge, measures, statistics with intervals, reports, and the comparison of recipes."""
