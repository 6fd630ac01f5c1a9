"""A run: from a configuration to a directory of results, and on from where a killed one stopped."""
