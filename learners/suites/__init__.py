"""Benchmarks of the parts of a round, for anybody's parts: see `learners.benchmarking`."""
