"""The columns of the Small CNN Zoo with our values in the meaning that they have there.

A name there says what the training script behind that zoo (TensorFlow, Keras) meant by it. What
has another meaning here is converted. What cannot be converted stays empty if it is a number, and
is named ``zoo.<name>`` if it is a name, which is none of theirs. Every column of ours that has a
value is written as ``zoo.<column>`` too, so that nothing is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.architectures.init import FIXED_SPREAD
from zoo.architectures.layout import Layout
from zoo.dataset.exports.base import plain_columns
from zoo.dataset.structure import Structure
from zoo.dataset.view import View
from zoo.errors import QueryError
from zoo.optim import DECAY_MASKS
from zoo.spec.run import SEED_FIELDS, RunSpec

__all__ = ["FINAL_STEP", "L2_OPTIMIZERS", "metrics_columns", "penalty_weights"]

#: Their last epoch, and how the loaders know a final row.
FINAL_STEP = 86

#: Optimizers whose weight decay λ is the gradient of λ/2·‖w‖². Keras writes l2·‖w‖²: l2 = λ/2.
L2_OPTIMIZERS = frozenset(
    ("adadelta", "adagrad", "adam", "adamax", "amsgrad", "nadam", "radam", "rmsprop", "sgd")
)

_ARCHITECTURES = {"mlp": "fcn"}  # their "cnn" does not pad its maps, and ours does
_ACTIVATIONS = {
    "identity": "linear", "relu": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "gelu": "gelu",
    "silu": "swish",
}  # fmt: skip
#: Their ``he_normal`` and ``glorot_normal`` are cut off at two deviations; ours are not.
_INITS = {
    "kaiming_uniform": "he_uniform",
    "xavier_uniform": "glorot_uniform",
    "orthogonal": "orthogonal",
    "uniform": "RandomUniform",
}
#: Theirs have no momentum of their own: a run with some is not what the name says.
_OPTIMIZERS = frozenset(("adadelta", "adagrad", "adam", "adamax", "nadam", "rmsprop", "sgd"))


def metrics_columns(
    view: View, structure: Structure, penalty: NDArray[np.float64]
) -> dict[str, list[Any]]:
    """Return the columns of ``metrics.csv.gz``, missing values as None.

    Args:
        view: n rows of one structure.
        structure: of the rows.
        penalty: ``[n]`` λ/2·‖w‖² over what each run decays: their losses include it.

    Raises:
        QueryError: a row that is not its run's last and that the loaders would take for final.
    """
    ours = plain_columns(view)
    if "train_accuracy" not in ours:
        msg = "this format has an accuracy for every model, and these fit floats; take another one"
        raise QueryError(msg)
    runs, first, inverse = np.unique(ours["run_id"], return_index=True, return_inverse=True)
    configs = [_config(view.spec(int(at)), view, structure) for at in first]
    found: dict[str, list[Any]] = {
        name: [configs[i][name] for i in inverse] for name in (configs[0] if len(runs) else ())
    }
    found["modeldir"] = ours["run_id"].tolist()
    found["step"] = _steps(view)
    for part in ("test", "train"):
        found[f"{part}_accuracy"] = ours[f"{part}_accuracy"].tolist()
        found[f"{part}_loss"] = (ours[f"{part}_loss"] + penalty).tolist()
    for name, values in ours.items():
        texts = [None if v == "" or v != v else v for v in values.tolist()]
        if any(v is not None for v in texts):
            found[f"zoo.{name}"] = texts
    return found


def _config(run: RunSpec, view: View, structure: Structure) -> dict[str, Any]:
    """Return the ``config.*`` columns of a run."""
    facts: Mapping[str, Any] = view.zoo.plan.data.get(view.zoo.plan.data_key(run), {})
    examples = facts.get("train_examples")
    hidden = [s.shape[0] for s in structure.layout.segments if s.role == "kernel"][:-1]
    one_seed = all(getattr(run, name) == run.seed for name in SEED_FIELDS)
    return {
        "config.activation": _named(_ACTIVATIONS, run.activation),
        "config.b_init": "zoo.default" if run.init == "default" else "zeros",
        "config.dataset": run.data,
        "config.dnn_architecture": _named(_ARCHITECTURES, run.architecture),
        "config.dropout": run.dropout,
        "config.epochs": _whole(float(run.epochs or 0.0)),
        "config.init_std": FIXED_SPREAD * run.init_scale if run.init == "normal" else None,
        "config.l2reg": run.weight_decay / 2 if _has_l2(run) else None,
        "config.learning_rate": run.lr,
        "config.num_layers": len(hidden),
        "config.num_units": hidden[0] if len(set(hidden)) == 1 else None,
        "config.optimizer": _optimizer(run),
        "config.random_seed": run.seed if one_seed else None,
        "config.train_fraction": run.examples / examples if examples else None,
        "config.w_init": _init(run),
    }


def _named(names: Mapping[str, str], ours: str) -> str:
    return names.get(ours, f"zoo.{ours}")


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _has_l2(run: RunSpec) -> bool:
    """Return whether the run's decay, or having none, is an L2 penalty."""
    return run.weight_decay == 0 or run.optimizer in L2_OPTIMIZERS


def _optimizer(run: RunSpec) -> str:
    if run.momentum:
        return f"zoo.{run.optimizer}_momentum"
    return run.optimizer if run.optimizer in _OPTIMIZERS else f"zoo.{run.optimizer}"


def _init(run: RunSpec) -> str:
    if run.init == "normal":  # init_std has the spread
        return "RandomNormal"
    if run.init_scale == 1:
        return _named(_INITS, run.init)
    return f"zoo.{run.init}*{run.init_scale:g}"


def penalty_weights(run: RunSpec, layout: Layout) -> NDArray[np.float64]:
    """Return ``[P]``: the coefficient of each squared weight in the loss that the run minimises."""
    out = np.zeros(layout.params)
    if run.weight_decay and run.optimizer in L2_OPTIMIZERS:
        for s in layout.segments:
            if s.role in DECAY_MASKS[run.decay_mask]:
                out[s.offset : s.stop] = run.weight_decay / 2
    return out


def _steps(view: View) -> list[Any]:
    """Return the epoch of each row, and :data:`FINAL_STEP` for each run's last row in the view."""
    final = _final(view)
    epochs = view["epoch"].astype(np.float64)
    late = (~final) & (epochs >= FINAL_STEP)
    if late.any():
        msg = (
            f"the layout of the Small CNN Zoo cannot hold {int(late.sum())} rows at epoch "
            f"{FINAL_STEP} or later that are not their run's last: its loaders take epoch "
            f"{FINAL_STEP} for the end; query 'epoch == -1 or epoch < {FINAL_STEP}'"
        )
        raise QueryError(msg)
    return [
        FINAL_STEP if last else _whole(e) for last, e in zip(final, epochs.tolist(), strict=True)
    ]


def _final(view: View) -> NDArray[np.bool_]:
    """Return which rows are the last of their run in the view, ``[n]``."""
    runs = np.unique(view["run_id"], return_inverse=True)[1]
    ks = view["checkpoint"]
    last = np.full(runs.max() + 1 if len(runs) else 0, -1)
    np.maximum.at(last, runs, ks)
    return np.asarray(ks == last[runs])
