"""What to train: run specs, sweeps over them, and the predicates that select them."""

from zoo.spec.design import SweepBlock
from zoo.spec.predicate import Predicate, compile_predicate
from zoo.spec.record import RecordSpec
from zoo.spec.resolve import resolve_runs
from zoo.spec.run import SEED_FIELDS, RunSpec, field_infos
from zoo.spec.sweep import Sweep, count_runs, load_sweep

__all__ = [
    "SEED_FIELDS",
    "Predicate",
    "RecordSpec",
    "RunSpec",
    "Sweep",
    "SweepBlock",
    "compile_predicate",
    "count_runs",
    "field_infos",
    "load_sweep",
    "resolve_runs",
]
