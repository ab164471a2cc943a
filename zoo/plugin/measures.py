"""What a user's own code says of models: scores of examples, and landscape metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from zoo.architectures.network import load_row
from zoo.diets.scores.base import SCORES, Outputs, Score
from zoo.errors import RegistryError, TrainError
from zoo.landscape.base import MODEL_METRICS, Column, ModelBlock, ModelMetric
from zoo.plugin.signature import arguments_of, check_loading
from zoo.registry import PLUGIN_FIELD, first_sentence

__all__ = ["Model", "metric", "score"]

F = TypeVar("F", bound=Callable[..., Any])

_NEEDS = ("", "labels", "right", "probabilities", "floats")


def score(
    name: str,
    *,
    of: Literal["models", "data"] = "models",
    needs: str = "",
    doc: str = "",
    source: str = "",
) -> Callable[[F], F]:
    """Register a function that says how hard each training example is; higher = harder.

    Of ``"models"``: ``f(logits, targets)`` from the outputs ``[N, C]`` of one scoring model and
    the targets as trained on; the score is the mean over scoring models. Of ``"data"``:
    ``f(x, y)`` from arrays ``[N, D]`` and ``[N]``. Either returns ``[N]``.

    Args:
        name: in sweeps: ``score = "NAME"``.
        of: what it is computed from.
        needs: of the objective: ``"labels"``, ``"right"`` (and wrong predictions),
            ``"probabilities"`` of classes or ``"floats"`` as targets; empty = nothing.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.

    Raises:
        RegistryError: the name is taken, or a word is not allowed.
    """
    what = f"score {name!r}"
    check_loading(what)
    _check_word(what, "of", of, ("models", "data"))
    _check_word(what, "needs", needs, _NEEDS)

    def enter(function: F) -> F:
        def of_models(outputs: Outputs) -> Tensor:
            z, y = outputs.logits, outputs.targets
            rows = [function(z[g], y[g % y.shape[0]]) for g in range(z.shape[0])]
            found = torch.stack([torch.as_tensor(row, dtype=torch.float32) for row in rows])
            if found.shape != z.shape[:2]:
                msg = f"{what} returns {list(found.shape[1:])} for {z.shape[1]} examples"
                raise TrainError(msg)
            return found

        def of_data(x: Any, y: Any) -> Any:
            found = np.asarray(function(x, y), dtype=np.float64)
            if found.shape != (len(x),):
                msg = f"{what} returns {list(found.shape)} for {len(x)} examples"
                raise TrainError(msg)
            return found

        SCORES.register(name, source=source)(
            Score(
                kind="point" if of == "models" else "data",
                doc=doc or first_sentence(function),
                source=source,
                compute=of_models if of == "models" else of_data,
                needs=needs,
            )
        )
        return function

    return enter


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One model at one checkpoint, and examples to measure it on.

    Args:
        module: the plain module in eval mode, with the model's weights.
        initial: the same with the weights that it began with.
        x: ``[N, *example_shape]`` training examples of the probe, normalised.
        y: ``[N]`` labels as trained on, labels of positions, or values ``[N, C]``.
        test_x, test_y: the same of the test set.
        losses: from the module's outputs and targets to the plain loss of each example ``[N]``.
        seed: of random numbers of its own.
    """

    module: nn.Module
    initial: nn.Module
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    losses: Callable[[Tensor, Tensor], Tensor]
    seed: int


def metric(
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    needs: str = "",
    passes: float = 10.0,
    doc: str = "",
    source: str = "",
) -> Callable[[F], F]:
    """Register a function of one :class:`Model` as a landscape metric.

    It returns a number, or a mapping with one for each of ``columns``. Its further arguments are
    options of ``zoo landscape --set NAME.OPTION=VALUE``. It is computed if it is asked for by
    name: ``zoo landscape --metrics NAME``.

    Args:
        name: of the metric, and of its column if ``columns`` is not given.
        columns: name -> one line, with the unit.
        needs: of the objective; see :func:`score`.
        passes: rough cost, in passes over the probe.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.

    Raises:
        RegistryError: the name or a column is taken, or an argument cannot be an option.
    """
    what = f"landscape metric {name!r}"
    check_loading(what)
    _check_word(what, "needs", needs, _NEEDS)

    def enter(function: F) -> F:
        text = doc or first_sentence(function)
        wanted = dict(columns or {name: text or name})
        known = {c.name for entry in MODEL_METRICS for c in MODEL_METRICS[entry].columns}
        taken = [c for c in wanted if c in known or not c.isidentifier()]
        if taken:
            msg = f"{what}: column {taken[0]!r} is taken, or no Python name: take another one"
            raise RegistryError(msg)
        own = arguments_of(what, function, given=(), positional=1, per="model")
        if own.common:
            msg = f"{what}: argument {own.common[0]!r} is a field of every run: take another name"
            raise RegistryError(msg)

        def compute(block: ModelBlock, options: Mapping[str, Any]) -> dict[str, Tensor]:
            found: dict[str, list[float]] = {column: [] for column in wanted}
            own_options = {n: v for n, v in options.items() if n != PLUGIN_FIELD.name}
            for g in range(block.models):
                with torch.enable_grad():
                    value = function(_model(block, g), **own_options)
                values = value if isinstance(value, Mapping) else {next(iter(wanted)): value}
                if set(values) != set(wanted):
                    msg = f"{what} returns {', '.join(values)}; its columns: {', '.join(wanted)}"
                    raise TrainError(msg)
                for column, number in values.items():
                    found[column].append(float(number))
            return {c: torch.tensor(v, dtype=torch.float64) for c, v in found.items()}

        entry = ModelMetric(
            columns=tuple(Column(c, line) for c, line in wanted.items()),
            compute=compute,
            options={n: f.default for n, f in own.fields.items()},
            passes=passes,
            default=False,
            needs=needs,
        )
        MODEL_METRICS.register(name, doc=text, source=source)(entry)
        return function

    return enter


def _model(block: ModelBlock, g: int) -> Model:
    """Return model g of a block, alone; examples that only pad are left out."""
    network = block.network
    module, initial = network.module(), network.module()
    load_row(module, network.layout, block.slab[g].numpy())
    load_row(initial, network.layout, block.initial[g].numpy())
    sets = []
    for probe in (block.train, block.test):
        one = g % probe.y.shape[0]
        counts = probe.weight[g % probe.weight.shape[0]] > 0
        x = network.examples(probe.x[g % probe.x.shape[0]])
        sets += [x[counts], probe.y[one][counts]]
    x, y, test_x, test_y = sets

    def losses(z: Tensor, targets: Tensor) -> Tensor:
        return block.objective.losses(z.flatten(1), targets)

    return Model(module, initial, x, y, test_x, test_y, losses, int(block.seeds[g]))


def _check_word(what: str, name: str, word: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        msg = f"{what}: {name} = {word!r}; allowed: {', '.join(map(repr, allowed))}"
        raise RegistryError(msg)
