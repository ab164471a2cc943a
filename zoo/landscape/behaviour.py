"""What a model says on the probes: likelihood, error, calibration; and whether it is alive at all.

NLL and Brier score (Brier 1950) are proper; ECE has 15 bins of equal width over the confidence
(Guo et al. 2017, arXiv 1706.04599) and is biased upwards on few examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.landscape.base import MODEL_METRICS, Block, Column, ModelMetric
from zoo.landscape.stacked import Probe, example_losses, features

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
    """Return NLL (nats), error (percent), Brier and ECE ``[G]`` each, with standard errors."""
    G, _, C = z.shape
    labels, weight = probe.labels(G), probe.weight.double().expand(G, -1)
    soft = torch.softmax(z, -1)
    confidence, chosen = soft.max(-1)
    wrong = (chosen != labels).double()
    brier = (soft - F.one_hot(labels, C)).square().sum(-1)
    found: dict[str, Tensor] = {}
    each = {"nll": example_losses(z, labels), "error": 100 * wrong, "brier": brier}
    count = (weight > 0).sum(1).double()
    for name, values in each.items():
        mean = (values * weight).sum(1)
        spread = ((values - mean[:, None]).square() * weight).sum(1)
        found[name] = mean
        found[f"{name}_se"] = (spread / (count - 1)).sqrt()
    found["ece"] = calibration_error(confidence, 1 - wrong, weight, bins)
    found["ece_se"] = _jackknife(confidence, 1 - wrong, weight, bins)
    return found


def _jackknife(confidence: Tensor, correct: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Return the standard error of ECE by leaving out every eighth of the examples in turn."""
    position = torch.arange(confidence.shape[1], device=weight.device) % _PARTS
    values = []
    for part in range(_PARTS):
        kept = weight * (position != part)
        kept = kept / kept.sum(1, keepdim=True)
        values.append(calibration_error(confidence, correct, kept, bins))
    stack = torch.stack(values)
    return ((_PARTS - 1) / _PARTS * (stack - stack.mean(0)).square().sum(0)).sqrt()


def behaviour(block: Block, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return scores on both probes, and the flags ``finite``, ``collapsed`` and ``dead_units``.

    ``finite``: weights and logits are. ``collapsed``: one class is predicted for the whole training
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
            chosen = z.argmax(-1)
            same = (chosen == chosen[:, :1]).all(1)
            units = [h.amax(1) == h.amin(1) for h in hidden]
            found["finite"] = fine.double()
            found["collapsed"] = torch.where(fine, same.double(), torch.nan)
            dead = (
                torch.cat(units, 1).double().mean(1) if units else torch.zeros_like(same).double()
            )
            found["dead_units"] = torch.where(fine, dead, torch.nan)
    return found


def _columns() -> tuple[Column, ...]:
    docs = {
        "nll": "cross-entropy on the {} probe, nats",
        "error": "error on the {} probe, percent",
        "brier": "Brier score on the {} probe",
        "ece": "expected calibration error on the {} probe, 15 bins",
    }
    found = [
        Column("finite", "1 where weights and logits are finite", missing=0.0),
        Column("collapsed", "1 where one class is predicted for the whole training probe"),
        Column("dead_units", "share of hidden units that are constant on the training probe"),
    ]
    for name in ("train", "test"):
        for key, doc in docs.items():
            found.append(Column(f"probe_{name}_{key}", doc.format(name)))
            found.append(Column(f"probe_{name}_{key}_se", "its standard error"))
    return tuple(found)


MODEL_METRICS.register("behaviour")(
    ModelMetric(columns=_columns(), compute=behaviour, options={"bins": 15}, passes=3.0)
)
