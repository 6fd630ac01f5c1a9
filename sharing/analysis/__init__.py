"""The stability-support analysis: every strategy on a contextual bandit, in closed form and by simulation.

    bandit         contexts (prompts), arms (responses), softmax policies; disagreement and residual as numbers
    outcomes       what a group of samples can turn out as, by exact enumeration, and the moments of an update over it
    closed_form    the expected update of each strategy, one short function with its formula
    simulation     the same updates, sample by sample, and the criterion by which the two must agree
    lessons        the update that Lessons ask of a softmax policy over arms
    shipped        the shipped strategies on the bandit, through their real wrappers
    agreement      when a simulation agrees with a closed form
    plane          the sweep, and the numbers the figures are drawn from
    figures        the figures

`python -m sharing.analysis --out docs/figures` recomputes everything.
"""
