"""The metrics of pairs of models of one cell, registered: connectivity, barrier, similarity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.architectures.symmetry import permutation_groups
from zoo.landscape.base import Column
from zoo.landscape.cells import CELL_METRICS, CellBlock, CellMetric
from zoo.landscape.connectivity import (
    CHORD_OPTIONS,
    CURVE_OPTIONS,
    along_chord,
    along_curve,
    barrier,
    mode_connectivity,
    train_bends,
)
from zoo.landscape.similarity import cka, cosine_and_distance, disagreement, jensen_shannon
from zoo.landscape.stacked import features, logits
from zoo.landscape.weight_matching import match_rows

__all__ = ["chords", "curves", "similarities"]


def _gather(block: CellBlock, parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: block.mask(torch.cat([part[name] for part in parts])) for name in parts[0]}


def curves(block: CellBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the mode connectivity of each pair, on training error (percent) and loss (nats)."""
    parts = []
    for pairs, padded in block.groups():
        a, b = block.slab[block.first[padded]], block.slab[block.second[padded]]
        data = block.pair_data(padded)
        bend = train_bends(block.network, a, b, data, options)
        found = along_curve(block.network, a, bend, b, data, options)
        real = slice(0, pairs.stop - pairs.start)
        parts.append(
            {
                "mode_connectivity": mode_connectivity(found.error)[real],
                "mode_connectivity_loss": mode_connectivity(found.loss)[real],
                "curve_error": found.error[real],
                "curve_loss": found.loss[real],
            }
        )
    return _gather(block, parts)


def chords(block: CellBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the barrier on the chord of each pair, as they stand and after weight matching."""
    groups = permutation_groups(block.network)
    layout = block.network.layout
    parts = []
    for pairs, padded in block.groups():
        a, b = block.slab[block.first[padded]], block.slab[block.second[padded]]
        data = block.pair_data(padded)
        real = slice(0, pairs.stop - pairs.start)
        rows = match_rows(layout, groups, a[real].numpy(), b[real].numpy())
        matched = torch.from_numpy(rows)
        short = len(padded) - len(matched)
        matched = torch.cat([matched, matched[-1:].expand(short, -1)])
        part: dict[str, Tensor] = {}
        for name, end in (("", b), ("_matched", matched)):
            found = along_chord(block.network, a, end, data, options)
            part[f"linear_barrier{name}"] = barrier(found.loss, found.t)[real]
            part[f"linear_barrier_error{name}"] = barrier(found.error, found.t)[real]
            part[f"chord_loss{name}"] = found.loss[real]
            part[f"chord_error{name}"] = found.error[real]
        trained = layout.trained
        part["l2_distance_matched"] = (a - matched)[real, :trained].double().norm(dim=1)
        parts.append(part)
    return _gather(block, parts)


def similarities(block: CellBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return CKA on the mixup probe, predictions' differences on the test probe, and distances."""
    hidden, last, z, said = [], [], [], []
    size = block.group
    count = block.slab.shape[0]
    for start in range(0, count, size):
        ids = torch.arange(start, start + size).clamp(max=count - 1)
        real = slice(0, min(size, count - start))
        rows = block.slab[ids]
        inner, before, out = features(block.network, rows, block.mixup)
        hidden.append([h[real] for h in inner])
        last.append(before[real])
        z.append(out[real])
        said.append(logits(block.network, rows, block.test.x)[real])
    pairs, objective = (block.first, block.second), block.test.objective
    outputs, answers = torch.cat(z), torch.cat(said)
    layers = [cka(torch.cat(parts), *pairs) for parts in zip(*hidden, strict=True)]
    # within a module of a user's own no layer is known
    layers = layers or [torch.full(pairs[0].shape, torch.nan, dtype=torch.float64)]
    cosine, distance = cosine_and_distance(block.slab[:, : block.network.layout.trained], *pairs)
    found = {
        "cka": cka(objective.said(outputs.double()), *pairs),
        "cka_logits": cka(outputs, *pairs),
        "cka_penultimate": cka(torch.cat(last), *pairs),
        "cka_layers": torch.stack(layers, 1),
        "l2_distance": distance,
        "cosine": cosine,
    }
    if objective.classifies:
        found["disagreement"] = disagreement(objective.predictions(answers), *pairs)
    if objective.softmax:
        logs = objective.log_probabilities(answers.double())
        found["js_divergence"] = jensen_shannon(logs, *pairs)
    return {name: block.mask(value) for name, value in found.items()}


def _of_error(name: str, doc: str, dims: tuple[str, ...] = ()) -> Column:
    """Return a column that there is where predictions are right or wrong."""
    return Column(name, doc, dims, needs="right")


CELL_METRICS.register(
    "connectivity",
    doc="mode connectivity: loss along a trained Bézier curve between two models",
    source="Garipov et al. 2018, arXiv 1802.10026; Yang et al. 2021, arXiv 2107.11228",
)(
    CellMetric(
        columns=(
            Column(
                "mode_connectivity",
                "of the curve, on training error, percent; < 0: barrier",
                needs="right",
            ),
            Column("mode_connectivity_loss", "of the curve, on training loss{unit}"),
            Column(
                "curve_error",
                "training error along the curve, percent",
                ("curve_point",),
                needs="right",
            ),
            Column("curve_loss", "training loss along the curve{unit}", ("curve_point",)),
        ),
        compute=curves,
        options=CURVE_OPTIONS,
        ring=True,
    )
)
CELL_METRICS.register(
    "barrier",
    doc="loss barrier on the chord, before and after matching units",
    source="Entezari et al. 2022, arXiv 2110.06296",
)(
    CellMetric(
        columns=(
            Column("linear_barrier", "highest loss above the chord{unit}"),
            _of_error("linear_barrier_error", "highest error above the chord, percent"),
            Column("linear_barrier_matched", "the same after weight matching{unit}"),
            Column(
                "linear_barrier_error_matched",
                "the same after weight matching, percent",
                needs="right",
            ),
            Column("l2_distance_matched", "distance after weight matching"),
            Column("chord_loss", "training loss along the chord{unit}", ("chord_point",)),
            Column(
                "chord_error",
                "training error along the chord, percent",
                ("chord_point",),
                needs="right",
            ),
            Column("chord_loss_matched", "the same after weight matching", ("chord_point",)),
            Column(
                "chord_error_matched",
                "the same after weight matching",
                ("chord_point",),
                needs="right",
            ),
        ),
        compute=chords,
        options=CHORD_OPTIONS,
        ring=True,
    )
)
CELL_METRICS.register(
    "similarity",
    doc="how alike two models are: representations (CKA), predictions, weights",
    source="Nguyen et al. 2021, arXiv 2010.15327",
)(
    CellMetric(
        columns=(
            Column("cka", "debiased linear CKA of the softmax (or else outputs), mixup probe"),
            Column("cka_logits", "the same of the outputs as they are"),
            Column("cka_penultimate", "the same of the penultimate features"),
            Column(
                "cka_layers", "the same of each activation, over positions averaged", ("layer",)
            ),
            _of_error("disagreement", "share of test examples predicted differently"),
            Column(
                "js_divergence",
                "Jensen-Shannon divergence on the test probe, nats",
                needs="probabilities",
            ),
            Column("l2_distance", "distance of the weights as they stand"),
            Column("cosine", "cosine of the weights as they stand"),
        ),
        compute=similarities,
    )
)
