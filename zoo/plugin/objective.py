"""``@plugin.objective``: a user's own loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import RegistryError
from zoo.fields import Field
from zoo.objectives.base import OBJECTIVES, TARGETS, Objective, Settings, as_outputs
from zoo.plugin.signature import arguments_of, check_loading, check_numbers, own_class
from zoo.registry import first_sentence

__all__ = ["objective"]

F = TypeVar("F", bound=Callable[..., Tensor])

#: Steps of the search for the best constant output.
_STEPS = 100


@dataclass(frozen=True, slots=True)
class OwnObjective(Objective):
    """A loss that is a function of outputs ``[B, C]`` and targets, one value per example."""

    #: The function.
    loss: ClassVar[Callable[..., Tensor]]
    #: Its fields at their defaults: the plain loss, which is recorded.
    defaults: ClassVar[Mapping[str, float]]

    def losses(self, z: Tensor, targets: Tensor) -> Tensor:
        """Return the function's values, with its fields at their defaults."""
        return _on_batches(type(self).loss, z, targets, self.defaults)

    def trained(self, z: Tensor, targets: Tensor, settings: Settings) -> Tensor:
        """Return the function's values, with each model's own fields."""
        if not settings:
            return self.losses(z, targets)

        def one(z: Tensor, targets: Tensor, own: dict[str, Tensor]) -> Tensor:
            return type(self).loss(z, targets, **{**self.defaults, **own})

        targets = targets.expand(z.shape[0], *targets.shape[1:])
        found: Tensor = torch.vmap(one)(z, targets, dict(settings))
        return found

    def guessing(self, targets: NDArray[Any], outputs: int) -> float:
        """Return the loss of the best constant output; NaN where none is found."""
        if self.target == "class":
            y = torch.arange(outputs)
        else:
            y = torch.from_numpy(np.array(targets, dtype=np.float64))
        start = as_outputs(y, outputs, torch.float64).mean(0)
        best = min((_least(self, y, z) for z in (start, torch.zeros_like(start))), default=np.nan)
        return best if np.isfinite(best) else float("nan")


def _least(objective: Objective, y: Tensor, start: Tensor) -> float:
    """Return the least mean loss of one output for all targets, from a start downhill."""
    z = start.clone().requires_grad_()
    search = torch.optim.LBFGS([z], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        found = objective.losses(z.expand(len(y), -1), y).mean()
        torch.autograd.backward(found)
        return found

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(objective.losses(z.expand(len(y), -1), y).mean())


def _on_batches(
    loss: Callable[..., Tensor], z: Tensor, targets: Tensor, options: Mapping[str, float]
) -> Tensor:
    """Return the loss of each example whatever axes stand before that of the batch."""
    dims = z.ndim - 2
    lead = tuple(np.broadcast_shapes(z.shape[:dims], targets.shape[:dims]))
    rest = targets.shape[dims:]
    flat_z = z.expand(*lead, *z.shape[dims:]).reshape(-1, z.shape[-1])
    own = rest[1:]
    flat_y = targets.expand(*lead, *rest).reshape(-1, *own)
    return loss(flat_z, flat_y, **options).reshape(*lead, z.shape[-2])


def objective(
    name: str,
    *,
    takes: tuple[str, ...] = ("class",),
    softmax: bool = False,
    doc: str = "",
    source: str = "",
    unit: str = "",
    fields: Iterable[Field] = (),
) -> Callable[[F], F]:
    """Register a loss: from outputs ``[B, C]`` and targets to one value for each example ``[B]``.

    Targets are labels ``[B]``, or values ``[B, C]``. Its derivatives come from ``torch.func``. A
    further argument is a field that differs from model to model; the recorded loss has all of them
    at their defaults, so that a column means the same in every row.

    Args:
        name: in sweeps: ``objective = "NAME"``.
        takes: kinds of targets: ``"class"``, ``"binary"``, ``"vector"``.
        softmax: whether softmax(outputs) are the probabilities of the classes.
        doc: one line with the formula; by default the first of the docstring.
        source: author, year, arXiv.
        unit: of the loss.
        fields: own fields with bounds, in place of what the signature says.

    Raises:
        RegistryError: the name is taken, or an argument cannot be a field that is a number.
    """
    what = f"objective {name!r}"
    check_loading(what)

    def enter(function: F) -> F:
        unknown = [kind for kind in takes if kind not in TARGETS]
        if unknown or not takes:
            msg = f"{what}: takes = {takes!r}; allowed: {', '.join(TARGETS)}"
            raise RegistryError(msg)
        own = arguments_of(what, function, given=(), positional=2, declared=fields, per="model")
        check_numbers(what, own)
        text = doc or first_sentence(function)
        members = {
            "takes": takes, "softmax": softmax, "doc": text, "source": source, "unit": unit,
            "loss_name": name.replace("_", " "), "fields": own.fields,
            "loss": staticmethod(function), "__slots__": (),
            "defaults": {n: float(f.default) for n, f in own.fields.items()},
        }  # fmt: skip
        kind = own_class(OwnObjective, name, members)
        OBJECTIVES.register(name, doc=text, source=source)(kind)
        return function

    return enter
