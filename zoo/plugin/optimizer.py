"""``@plugin.optimizer``: a user's own update rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from zoo.architectures.layout import Layout
from zoo.errors import RegistryError
from zoo.fields import Field
from zoo.optim.base import OPTIMIZERS, Coefficients, Optimizer, TorchParams
from zoo.plugin.signature import arguments_of, check_loading, check_numbers, own_class
from zoo.registry import first_sentence
from zoo.spec.run import RunSpec

__all__ = ["optimizer"]

F = TypeVar("F", bound=Callable[..., Any])

#: Fields of every run that a rule may take, and that it gets as numbers of this step.
_COMMON = ("lr", "weight_decay")
_STEP = "step"


class OwnOptimizer(Optimizer):
    """A rule that is a function of parameters, gradients and moments."""

    rule: ClassVar[Callable[..., Any]]

    def table(self, runs: Any, lr: Any, step: Any) -> dict[str, Any]:
        """Return the fields, the learning rate and, where the rule takes it, the step."""
        found = super().table(runs, lr, step)
        return {**found, _STEP: step.astype("float64")} if _STEP in self.coefficients else found

    def update(
        self,
        p: Tensor,
        g: Tensor,
        moments: Sequence[Tensor],
        c: Coefficients,
        run: Mapping[str, Any],
        layout: Layout,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return what the rule does."""
        named = dict(zip(self.moments, moments, strict=True))
        given = {name: c[name] for name in self.coefficients}
        found = type(self).rule(p, g, named, **given)
        new, held = found if isinstance(found, tuple) else (found, {})
        return new, [held[name] for name in self.moments]

    def torch(self, params: TorchParams, run: RunSpec) -> torch.optim.Optimizer:
        """Return a loop over tensors that applies the rule to one model."""
        return RuleOptimizer(params, self, run)


class RuleOptimizer(torch.optim.Optimizer):
    """A rule on the tensors of one model, all of them together as one row.

    Args:
        params: the tensors, in the order of the layout.
        kind: the optimizer.
        run: its fields.
    """

    def __init__(self, params: TorchParams, kind: OwnOptimizer, run: RunSpec) -> None:
        super().__init__(params, {"lr": run.lr, "weight_decay": run.weight_decay})
        self.kind, self.run = kind, run

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every tensor that has a gradient."""
        tensors = [(t, group) for group in self.param_groups for t in group["params"]]
        decays = {float(group["weight_decay"]) for group in self.param_groups if group["params"]}
        row = torch.cat([t.reshape(-1) for t, _ in tensors]).unsqueeze(0)
        grads = [torch.zeros_like(t) if t.grad is None else t.grad for t, _ in tensors]
        grad = torch.cat([g.reshape(-1) for g in grads]).unsqueeze(0)
        names = self.kind.moments
        held = [
            torch.cat(
                [self.state[t].get(n, torch.zeros_like(t)).reshape(-1) for t, _ in tensors]
            ).unsqueeze(0)
            for n in names
        ]
        count = int(self.state[tensors[0][0]].get("step", 0)) + 1
        values = {n: torch.tensor([[float(getattr(self.run, n))]]) for n in self._fixed()}
        values["lr"] = torch.tensor([[float(self.param_groups[0]["lr"])]])
        if _STEP in self.kind.coefficients:
            values[_STEP] = torch.tensor([[float(count)]])
        if "weight_decay" in values and len(decays) > 1:
            values["weight_decay"] = torch.cat(
                [torch.full((t.numel(),), float(g["weight_decay"])) for t, g in tensors]
            ).unsqueeze(0)
        new, moments = self.kind.update(row, grad, held, values, {}, Layout(()))
        start = 0
        for tensor, _ in tensors:
            stop = start + tensor.numel()
            tensor.copy_(new[0, start:stop].view_as(tensor))
            state = self.state[tensor]
            state["step"] = torch.tensor(float(count))
            for name, moment in zip(names, moments, strict=True):
                state[name] = moment[0, start:stop].view_as(tensor).clone()
            start = stop

    def _fixed(self) -> list[str]:
        return [n for n in self.kind.coefficients if n not in ("lr", _STEP)]


def optimizer(
    name: str,
    *,
    moments: tuple[str, ...] = (),
    doc: str = "",
    source: str = "",
    fields: Iterable[Field] = (),
) -> Callable[[F], F]:
    """Register an update rule: from parameters, gradients and moments to new ones.

    ``rule(p, g, moments, *, lr, ...)``: ``p`` and ``g`` are ``[G, P]``, ``moments`` a mapping of
    the names given here to ``[G, P]``, zeros at first; every further argument is a number for each
    model, ``[G, 1]``. It returns new parameters, or these and a mapping of new moments. No
    operation may mix rows. ``lr`` is the scheduled rate, ``step`` the number of the step from 1;
    ``weight_decay`` is that of every run, and any other argument is a field of its own.

    Args:
        name: in sweeps: ``optimizer = "NAME"``.
        moments: names of what the rule remembers.
        doc: one line; by default the first of the docstring.
        source: author, year, arXiv.
        fields: own fields with bounds, in place of what the signature says.

    Raises:
        RegistryError: the name is taken, or an argument cannot be a field that is a number.
    """
    what = f"optimizer {name!r}"
    check_loading(what)

    def enter(rule: F) -> F:
        own = arguments_of(what, rule, given=(_STEP,), positional=3, declared=fields, per="model")
        check_numbers(what, own, _COMMON)
        names = tuple(dict.fromkeys((*own.given, *own.common, *own.fields)))
        members = {
            "fields": own.fields,
            "moments": tuple(moments),
            "coefficients": names if "lr" in names else ("lr", *names),
            "decays": {"weight_decay": 0.0} if "weight_decay" in names else {},
            "rule": staticmethod(rule),
            "__doc__": rule.__doc__,
        }
        if "lr" not in names:
            msg = f"{what}: takes no lr, so that no learning rate and no schedule would count"
            raise RegistryError(msg)
        kind = own_class(OwnOptimizer, name, members)
        OPTIMIZERS.register(name, doc=doc or first_sentence(rule), source=source)(kind())
        return rule

    return enter
