"""Any ``nn.Module`` as a function of stacked models: one call for G models by ``torch.func``.

Where ``torch.func.vmap`` cannot take a module (a branch on a value, ``.item()``), the models are
run one after the other, and :attr:`StackedModule.alone` says why.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.flop_counter import FlopCounterMode

from zoo.architectures.layout import BUFFER
from zoo.architectures.mode import Params
from zoo.architectures.op import Param
from zoo.arithmetic import pinned

__all__ = ["ModuleError", "StackedModule"]

#: From the tensors and the examples of one model to its outputs and new buffers.
_One = Callable[[dict[str, Tensor], Tensor], tuple[Tensor, dict[str, Tensor]]]
_WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd, nn.Bilinear)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_RANDOM = "draws random numbers in training, which no seed of the run decides: set dropout to 0"


class ModuleError(ValueError):
    """A module that cannot be trained as it is; a clause that says why and what to do."""


class StackedModule:
    """A module's forward pass for G models at once, its tensors given by name.

    Trained are the parameters that require a gradient. Other parameters and persistent buffers of
    floats are kept in a model's row and not moved by the optimizer; what the forward pass in
    training does to buffers (running statistics) is handed back. Buffers of integers, and those
    that are not persistent, must be the same in all models and stay as they are.

    Args:
        make: returns a new module, initialised by torch.
        example: returns an input of B examples ``[B, ...]``, as the module takes it.

    Raises:
        ModuleError: the module cannot be made, run or trained.
    """

    def __init__(self, make: Callable[[], nn.Module], example: Callable[[int], Tensor]) -> None:
        self._make, self._example = make, example
        self.template = self._fresh(0)
        trained = {n: p for n, p in self.template.named_parameters() if p.requires_grad}
        frozen = {n: p for n, p in self.template.named_parameters() if not p.requires_grad}
        kept = {n: b for n, b in _persistent(self.template).items() if b.is_floating_point()}
        fixed = {**frozen, **kept}
        for name, tensor in {**trained, **fixed}.items():
            if tensor.dtype != torch.float32:
                msg = f"{name} is {tensor.dtype}: models train in float32"
                raise ModuleError(msg)
        self.params = tuple(_params(self.template, trained, fixed))
        self._fixed = tuple(fixed)
        self._buffers = tuple(kept)
        _check_norms(self.template)
        self._modes = {mode: _ready(self.template, training=mode) for mode in (False, True)}

    @pinned()
    def _fresh(self, seed: int) -> nn.Module:
        """Return a module whose initial values follow from a seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                module: object = self._make()
            except Exception as error:
                msg = f"cannot be made: {type(error).__name__}: {error}"
                raise ModuleError(msg) from error
        if not isinstance(module, nn.Module):
            msg = f"is made as {type(module).__name__}, not as a torch.nn.Module"
            raise ModuleError(msg)
        return module

    def module(self) -> nn.Module:
        """Return a new module, initialised by torch."""
        return self._make()

    def initial(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Return the initial value of each tensor of a row."""
        module = self._fresh(seed)
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return {param.suffix: tensors[param.suffix].detach().numpy() for param in self.params}

    # -- the forward pass -------------------------------------------------------------------

    def __call__(
        self, tensors: Params, xs: Tensor, *, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return outputs ``[G, B, ...]``, and the new values of buffers in training.

        Args:
            tensors: by name, each ``[G, *shape]``.
            xs: ``[G, B, ...]``.
            training: whether the module is in training mode.
        """
        module = self._on(xs.device)[training]
        one = self._of_one(module, self._buffers if training else ())
        return self._mapped(one, dict(tensors), xs)

    def _of_one(self, module: nn.Module, told: Sequence[str]) -> _One:
        """Return the pass of one model, which tells what it does to some buffers."""

        def one(own: dict[str, Tensor], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            # a pass in training writes into running statistics, so it gets copies of its own
            held = {n: own[n].clone() if module.training else own[n] for n in self._fixed}
            out = torch.func.functional_call(module, {**own, **held}, (x,))
            return out, {n: held[n] for n in told}

        return one

    def fresh_statistics(self, tensors: Params, xs: Tensor) -> dict[str, Tensor]:
        """Return the running statistics of norms anew, from one batch ``[G, B, ...]``."""
        if not any(isinstance(child, _NormBase) for child in self.template.modules()):
            return {}
        fresh = copy.deepcopy(self._on(xs.device)[True])
        norms = []
        for path, child in fresh.named_modules():
            if isinstance(child, _NormBase) and child.track_running_stats:
                child.momentum = 1.0  # the statistics become those of the batch
                norms += [f"{path}.{name}".lstrip(".") for name in ("running_mean", "running_var")]

        return self._mapped(self._of_one(fresh, norms), dict(tensors), xs)[1]

    def _mapped(
        self, one: _One, own: dict[str, Tensor], x: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.alone:
            found: tuple[Tensor, dict[str, Tensor]] = torch.vmap(one)(own, x)
            return found
        outs, news = [], []
        for g in range(x.shape[0]):
            out, new = one({name: tensor[g] for name, tensor in own.items()}, x[g])
            outs.append(out)
            news.append(new)
        return torch.stack(outs), {n: torch.stack([new[n] for new in news]) for n in news[0]}

    def _on(self, device: torch.device) -> dict[bool, nn.Module]:
        """Return the modules of both modes, whose constants are on a device."""
        first = next((b for b in self._modes[False].buffers()), None)
        if first is not None and first.device != device:
            self._modes = {mode: module.to(device) for mode, module in self._modes.items()}
        return self._modes

    # -- what is known of it ----------------------------------------------------------------

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output example; the module is tried in both modes.

        Raises:
            ModuleError: it fails, makes no tensor, mixes up the batch, or draws random numbers.
        """
        shapes = set()
        for training in (False, True):
            x = self._example(3)
            own = {n: t[0] for n, t in self._row(1).items()}
            before = self._constants(training=training)
            one = self._of_one(self._modes[training], ())
            try:
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    torch.default_generator.manual_seed(1)
                    state = torch.default_generator.get_state()
                    out, _ = one(own, x)
                    drew = not torch.equal(state, torch.default_generator.get_state())
            except Exception as error:
                mode = "training" if training else "eval"
                msg = (
                    f"fails on an input of shape {list(x.shape)} in {mode} mode:"
                    f" {type(error).__name__}: {error}"
                )
                raise ModuleError(msg) from error
            if drew:
                raise ModuleError(_RANDOM)
            if not isinstance(out, Tensor) or out.ndim < 2 or out.shape[0] != 3:
                made = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
                msg = f"makes {made} of 3 examples; it must make a tensor [3, ...]"
                raise ModuleError(msg)
            self._check_constants(before, training=training)
            shapes.add(tuple(out.shape[1:]))
        if len(shapes) > 1:
            msg = f"makes outputs of different shapes in training and eval mode: {sorted(shapes)}"
            raise ModuleError(msg)
        return shapes.pop()

    def _constants(self, *, training: bool) -> dict[str, Tensor]:
        module = self._modes[training]
        return {n: b.clone() for n, b in module.named_buffers() if n not in self._buffers}

    def _check_constants(self, before: Mapping[str, Tensor], *, training: bool) -> None:
        after = self._constants(training=training)
        moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
        if moved:
            msg = (
                f"changes the buffer {moved[0]} in its forward pass, which is an integer or not"
                " persistent: register it as a persistent buffer of float32"
            )
            raise ModuleError(msg)

    def _row(self, models: int) -> dict[str, Tensor]:
        tensors = {**dict(self.template.named_parameters()), **dict(self.template.named_buffers())}
        rows = {p.suffix: tensors[p.suffix].detach() for p in self.params}
        return {n: t.expand(models, *t.shape).clone() for n, t in rows.items()}

    @cached_property
    def alone(self) -> str:
        """Why models are run one after the other; empty where they run stacked."""
        own, x = self._row(2), torch.stack([self._example(4)] * 2)
        one = self._of_one(self._modes[True], self._buffers)

        def total(own: dict[str, Tensor]) -> Tensor:
            out: Tensor = torch.vmap(one)(own, x)[0]
            return out.sum()

        try:
            with pinned():
                torch.func.grad(total)(own)
        except Exception as error:  # noqa: BLE001 - whatever keeps it from being stacked
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return lines[0][:200]
        return ""

    def flops(self) -> int:
        """Return the floating-point operations of the products of one example's forward pass."""
        own = {n: t[0] for n, t in self._row(1).items()}
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            torch.func.functional_call(self._modes[False], own, (self._example(1),))
        return int(counter.get_total_flops())


def _persistent(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that a state dict holds."""
    saved = module.state_dict(keep_vars=True)
    return {name: buffer for name, buffer in module.named_buffers() if name in saved}


def _params(
    module: nn.Module, trained: Mapping[str, Tensor], fixed: Mapping[str, Tensor]
) -> list[Param]:
    owners = dict(module.named_modules())
    found = []
    for name, tensor in trained.items():
        path, _, leaf = name.rpartition(".")
        role, fan_in = _role(owners[path], leaf, tensor)
        found.append(Param(name, tuple(tensor.shape), role, fan_in))
    return found + [Param(name, tuple(t.shape), BUFFER) for name, t in fixed.items()]


def _role(owner: nn.Module, leaf: str, tensor: Tensor) -> tuple[str, int]:
    """Return what a tensor is to initialisation and decay masks, and its fan-in."""
    if isinstance(owner, _NORMS):
        return ("norm_bias" if leaf == "bias" else "norm_weight"), 0
    if tensor.ndim >= 2:
        return "kernel", int(np.prod(tensor.shape[1:]))
    weight = getattr(owner, "weight", None)
    if leaf == "bias" and isinstance(owner, _WEIGHTED) and isinstance(weight, Tensor):
        return "bias", int(np.prod(weight.shape[1:]))
    return "bias" if "bias" in leaf else "norm_weight", 0


def _check_norms(module: nn.Module) -> None:
    for name, child in module.named_modules():
        if isinstance(child, _NormBase) and child.track_running_stats and child.momentum is None:
            msg = (
                f"{name} averages over all batches (momentum=None), which depends on how many there"
                " were: give it a momentum"
            )
            raise ModuleError(msg)


def _ready(module: nn.Module, *, training: bool) -> nn.Module:
    """Return a copy in a mode; batches are not counted, since nothing reads the count."""
    made = copy.deepcopy(module).train(training).requires_grad_(requires_grad=False)
    for child in made.modules():
        if isinstance(child, _NormBase):
            child.num_batches_tracked = None
    return made
