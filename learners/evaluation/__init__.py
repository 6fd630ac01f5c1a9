"""Evaluation after training: what was sampled and judged, how sure its figures are, and whether two arms differ.

    outcomes     what an evaluation holds: each task's samples with their verdicts, and the file they are kept in
    sampling     sampling and judging them on held-out tasks
    votes        the answer that a text votes for
    measures     mean@k, pass@k and maj@k, each with a bootstrap and a credible interval
    scores       one number for each arm, policy and seed (or task), from runs, suites and evaluations
    comparison   arm against baseline: paired differences, effect sizes, Holm's correction
    agreement    two policies on the same tasks: kappa, complementarity, wrong agreement

scipy and scorio (the extra `stats`) are imported where they are needed.
"""
