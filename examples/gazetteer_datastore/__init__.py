"""The gazetteer of a site without SQL: cities and totals are entities, and so is what the library has to remember."""
