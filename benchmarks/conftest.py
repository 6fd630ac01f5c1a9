"""`pytest benchmarks/`: every benchmark of ours, with the fixtures that others get by `-p learners.benchmarking`."""

from learners.benchmarking import (  # noqa: F401
    env,
    learner,
    learners_of_a_pair,
    loop,
    pytest_addoption,
    pytest_configure,
    strategy,
    tokenizer_pair,
)
