"""What to train: run specs, sweeps over them, and the predicates that select them."""

from zoo.spec.design import Block
from zoo.spec.predicate import Predicate, compile_predicate
from zoo.spec.record import RecordSpec
from zoo.spec.resolve import resolve_runs
from zoo.spec.run import SEED_FIELDS, FieldInfo, RunSpec, field_infos
from zoo.spec.sweep import Sweep, load_sweep

__all__ = [
    "SEED_FIELDS",
    "Block",
    "FieldInfo",
    "Predicate",
    "RecordSpec",
    "RunSpec",
    "Sweep",
    "compile_predicate",
    "field_infos",
    "load_sweep",
    "resolve_runs",
]
