"""What a model says on the probes: likelihood, error, calibration; and whether it is alive at all.

NLL and Brier score (Brier 1950) are proper; ECE has 15 bins of equal width over the confidence
(Guo et al. 2017, arXiv 1706.04599) and is biased upwards on few examples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric
from zoo.landscape.stacked import Probe, features
from zoo.objectives import OBJECTIVES, Objective

__all__ = ["behaviour", "calibration_error"]

_PARTS = 8


def calibration_error(confidence: Tensor, correct: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Return ECE ``[G]``: Σ_b |Σ_{i in b} w_i (correct_i − confidence_i)|.

    Args:
        confidence: ``[G, N]`` largest softmax value.
        correct: ``[G, N]`` 0 or 1.
        weight: ``[G, N]``, each row sums to one.
        bins: of equal width on (0, 1].
    """
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gaps = torch.zeros(*confidence.shape[:1], bins, dtype=confidence.dtype, device=weight.device)
    gaps.scatter_add_(1, place, weight * (correct - confidence))
    return gaps.abs().sum(1)


def _scores(z: Tensor, probe: Probe, bins: int) -> dict[str, Tensor]:
    """Return what applies of NLL (nats), error (percent), Brier, ECE, loss and R², ``[G]`` each.

    All with standard errors.
    """
    G, objective = z.shape[0], probe.objective
    targets, weight = probe.targets(G), probe.weight.double().expand(G, -1)
    each: dict[str, Tensor] = {}
    if objective.softmax:
        for name, entry in (("nll", "cross_entropy"), ("brier", "brier")):
            each[name] = OBJECTIVES[entry]("class").losses(z, targets)
    else:
        each["loss"] = objective.losses(z, targets)
    if objective.classifies:
        each["error"] = 100 * (1 - objective.correct(z, targets))
    count = (weight > 0).sum(1).double()
    found: dict[str, Tensor] = {}
    for name, values in each.items():
        mean = (values * weight).sum(1)
        spread = ((values - mean[:, None]).square() * weight).sum(1)
        found[name] = mean
        found[f"{name}_se"] = (spread / (count - 1)).sqrt()
    if objective.softmax:
        confidence, chosen = torch.softmax(z, -1).max(-1)
        right = (chosen == targets).double()
        found |= _with_error("ece", weight, lambda w: calibration_error(confidence, right, w, bins))
    if objective.target == "vector":
        found |= _with_error("r2", weight, lambda w: _r_squared(objective, z, targets, w))
    return found


def _r_squared(objective: Objective, z: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Return R² ``[G]`` of examples with weights ``[G, N]``."""
    sums = {
        name: (values.double() * weight.view(*weight.shape, *[1] * (values.ndim - 2))).sum(1)
        for name, values in objective.sums(z, targets).items()
    }
    return objective.measured(sums, weight.sum(1))["r2"]


def _with_error(name: str, weight: Tensor, value: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return a value of weighted examples, and its error by leaving out every eighth in turn."""
    position = torch.arange(weight.shape[1], device=weight.device) % _PARTS
    values = []
    for part in range(_PARTS):
        kept = weight * (position != part)
        values.append(value(kept / kept.sum(1, keepdim=True)))
    stack = torch.stack(values)
    error = ((_PARTS - 1) / _PARTS * (stack - stack.mean(0)).square().sum(0)).sqrt()
    return {name: value(weight), f"{name}_se": error}


def behaviour(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return scores on both probes, and the flags ``finite``, ``collapsed`` and ``dead_units``.

    ``finite``: weights and outputs are. ``collapsed``: the same is predicted for the whole training
    probe. ``dead_units``: share of hidden units whose output is the same for all of it.
    """
    found: dict[str, Tensor] = {}
    for name, probe in (("train", block.train), ("test", block.test)):
        hidden, _, z = features(block.network, block.slab, probe.x)
        z = z.double()
        scores = _scores(z, probe, options["bins"])
        found |= {f"probe_{name}_{key}": value for key, value in scores.items()}
        if name == "train":
            fine = torch.isfinite(z).flatten(1).all(1)
            said = block.objective.predictions(z)
            same = (said == said[:, :1]).flatten(1).all(1)
            units = [h.amax(1) == h.amin(1) for h in hidden]
            found["finite"] = fine.double()
            found["collapsed"] = torch.where(fine, same.double(), torch.nan)
            unknown = torch.full_like(same, torch.nan, dtype=torch.float64)
            dead = torch.cat(units, 1).double().mean(1) if units else unknown
            found["dead_units"] = torch.where(fine, dead, torch.nan)
    return found


def _columns() -> tuple[Column, ...]:
    docs = {
        "nll": ("cross-entropy on the {} probe, nats", "probabilities"),
        "loss": ("loss on the {} probe{{unit}}", "no probabilities"),
        "error": ("error on the {} probe, percent", "right"),
        "brier": ("Brier score on the {} probe", "probabilities"),
        "ece": ("expected calibration error on the {} probe, 15 bins", "probabilities"),
        "r2": ("R² on the {} probe", "floats"),
    }
    found = [
        Column("finite", "1 where weights and outputs are finite", missing=0.0),
        Column("collapsed", "1 where the same is predicted for the whole training probe"),
        Column("dead_units", "share of hidden units that are constant on the training probe"),
    ]
    for name in ("train", "test"):
        for key, (doc, needs) in docs.items():
            column = f"probe_{name}_{key}"
            found.append(Column(column, doc.format(name), needs=needs))
            found.append(Column(f"{column}_se", "its standard error", needs=needs))
    return tuple(found)


MODEL_METRICS.register(
    "behaviour",
    doc="likelihood, error and calibration on the probes; whether a model is alive",
    source="Guo et al. 2017, arXiv 1706.04599",
)(ModelMetric(columns=_columns(), compute=behaviour, options={"bins": 15}, passes=3.0))
