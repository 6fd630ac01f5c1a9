"""Beginnings of a package that adds one thing; `mutual-env new` fills in the names."""
