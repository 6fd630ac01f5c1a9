"""The stability-support analysis: every strategy on a contextual bandit, in closed form.

    bandit         contexts (prompts), arms (responses), softmax policies; disagreement and residual as numbers
    outcomes       what a group of samples can turn out as, by exact enumeration, and the moments of an update over it
    closed_form    the expected update of each strategy, one short function with its formula
    plane          the sweep, and the coordinates of each strategy
    claims         what is claimed of the probes, as numbers

`python -m benchmarks.bandit` recomputes the numbers of docs/bandit.md and draws its figures.
"""
