"""How large a number in a sweep may be before it is taken for a mistake.

Each limit is far above what a zoo of small networks needs, and low enough that everything up to it
is planned within seconds and without running out of memory.
"""

from __future__ import annotations

__all__ = [
    "MAX_CHECKPOINTS",
    "MAX_DEPTH",
    "MAX_EPOCHS",
    "MAX_EXAMPLES",
    "MAX_PARAMS",
    "MAX_RECORDED",
    "MAX_RUNS",
    "MAX_SCORE_SEEDS",
    "MAX_STEPS",
    "MAX_WIDTH",
    "MAX_WORKERS",
]

#: Runs of one sweep (the largest zoos have some 10^5).
MAX_RUNS = 1_000_000
#: Optimizer steps of a run, and passes over the training set: an epoch has a step at least.
MAX_STEPS = MAX_EPOCHS = 100_000_000
#: Checkpoints of a run.
MAX_CHECKPOINTS = 100_000
#: Checkpoints of all runs of a sweep: the plan holds two numbers for each.
MAX_RECORDED = 50_000_000
#: Hidden units or channels per layer, and hidden layers.
MAX_WIDTH, MAX_DEPTH = 65_536, 128
#: Values of one model; a group of four, with gradients and moments, is then 5 GB.
MAX_PARAMS = 100_000_000
#: Scoring models that one score is the mean of.
MAX_SCORE_SEEDS = 10_000
#: Examples of a batch, a training set or a probe.
MAX_EXAMPLES = 1_000_000_000
#: Worker processes of one machine.
MAX_WORKERS = 4_096
