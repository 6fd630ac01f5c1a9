"""One strategy, one file. Each class's docstring is its specification, degenerate cases included."""
