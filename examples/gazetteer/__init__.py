"""Real data, counted exactly: the population of 34,006 cities is added to their countries' totals, each once."""
