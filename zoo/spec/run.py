"""The run spec: everything that decides one model, frozen, validated and hashed.

Fields are flat, so that a field, a sweep axis, a store column and a name in a query are one word.
A field that only some optimizers, schedules or norms read (``momentum``, ``norm_groups``, ...) is
None where it does not apply; the entry that reads it declares it, with its default, in ``fields``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from zoo.errors import Problem, SpecError, nearest
from zoo.registry import vocabulary
from zoo.spec.diet import canonical_scorer, diet_problems, kept_of
from zoo.spec.fields import FieldInfo, check_value
from zoo.spec.fields import spec_field as _field

__all__ = ["OWNERS", "SEED_FIELDS", "FieldInfo", "RunSpec", "check_value", "field_infos"]

#: Changes whenever the meaning of a spec changes, so that run ids never lie.
SPEC_VERSION = 1

#: The six independent seeds; each takes the value of ``seed`` where it is not given.
SEED_FIELDS = (
    "init_seed", "order_seed", "augment_seed", "dropout_seed", "noise_seed", "diet_seed",
)  # fmt: skip

#: Fields whose registry entries declare further fields.
OWNERS = (
    "optimizer", "schedule", "norm", "architecture", "augmentation", "activation", "init", "score",
    "select", "dynamic",
)  # fmt: skip

#: Fields younger than the first stores: at their default they are no part of the identity, so that
#: the run ids of older stores stay.
_LATER = ("weight_transform", "decay_mask", "z_loss", "score", "dynamic")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One model of a zoo: data, architecture, optimization and seeds.

    Raises:
        SpecError: listing every field whose value is of the wrong type, out of range or unknown.
    """

    # data
    data: str = _field("digits", "data set")
    train_size: int | None = _field(None, "training examples used; None = all", low=1)
    label_noise: float = _field(0.0, "share of training labels replaced at random", low=0, high=1)
    normalization: str = _field("standard", "input normalisation")
    augmentation: str = _field("none", "training-time augmentation")
    augment_strength: float | None = _field(None, "strength, in the augmentation's unit", low=0)
    # diet
    score: str = _field("none", "what examples are ranked by, before training")
    keep: float | None = _field(None, "share of the training examples kept", above=0, high=1)
    select: str | None = _field(None, "which examples of the ranking are kept")
    offset: float | None = _field(None, "start of the window, as a share", low=0, below=1)
    trim: float | None = _field(None, "share of the hardest dropped first", low=0, below=1)
    score_epoch: float | None = _field(None, "epoch of the scoring models that scores", low=0)
    score_seeds: int | None = _field(None, "scoring models a score is the mean of", low=1)
    scorer: str | None = _field(None, "self, or fields that scoring models change: width=16")
    balance: str | None = _field(None, "class: every class keeps the same share")
    budget: str | None = _field(None, "steps or epochs: what a diet leaves as it is")
    dynamic: str = _field("none", "weights on the examples of a batch, worked out in training")
    drop_share: float | None = _field(
        None, "InfoBatch: share dropped below the mean", low=0, below=1
    )
    drop_until: float | None = _field(
        None, "InfoBatch: share of the steps with drops", low=0, high=1
    )
    backprop_share: float | None = _field(None, "share of a batch learned from", above=0, high=1)
    backprop_start: float | None = _field(None, "its start, as a share of the steps", low=0, high=1)
    backprop_end: float | None = _field(None, "its end, as a share of the steps", low=0, high=1)
    backprop_interrupt: int | None = _field(None, "every n-th step takes all; 0 = none", low=0)
    reweight_temperature: float | None = _field(None, "r of loss reweighting", above=0)
    reweight_start: float | None = _field(None, "its start, as a share of the steps", low=0, high=1)
    resample_share: float | None = _field(None, "share of a batch drawn again", above=0, high=1)
    resample_start: float | None = _field(None, "its start, as a share of the steps", low=0, high=1)
    # architecture
    architecture: str = _field("mlp", "architecture family")
    width: int = _field(64, "hidden units or channels a layer", low=1)
    depth: int | None = _field(None, "hidden layers; None = the family's own", low=1)
    activation: str = _field("relu", "activation function")
    norm: str = _field("none", "normalisation layer")
    norm_groups: int | None = _field(None, "groups of the group norm and of EvoNorm", low=1)
    virtual_batch: int | None = _field(None, "examples that share ghost batch statistics", low=2)
    weight_transform: str = _field("none", "what hidden weights go through before they are used")
    dropout: float = _field(0.0, "dropout probability", low=0, below=1)
    # optimization
    optimizer: str = _field("sgd", "optimizer")
    lr: float = _field(0.1, "peak learning rate", above=0)
    momentum: float | None = _field(None, "momentum factor", low=0, below=1)
    nesterov: bool | None = _field(None, "Nesterov momentum")
    beta1: float | None = _field(None, "decay of the first moment", low=0, below=1)
    beta2: float | None = _field(None, "decay of the second moment", low=0, below=1)
    alpha: float | None = _field(None, "decay of the squared average", low=0, below=1)
    eps: float | None = _field(None, "term added to the denominator", above=0)
    trust: float | None = _field(None, "trust coefficient of LARS", above=0)
    projection_delta: float | None = _field(None, "cosine below which SGDP, AdamP project", low=0)
    projection_decay: float | None = _field(None, "factor on the decay of what they project", low=0)
    momentum_decay: float | None = _field(None, "decay of NAdam's momentum schedule", low=0)
    weight_decay: float = _field(0.0, "weight decay, as the optimizer of torch defines it", low=0)
    decay_mask: str = _field("all", "parameters that weight decay acts on")
    clip_norm: float | None = _field(
        None, "largest norm of a model's gradient; None = any", above=0
    )
    label_smoothing: float = _field(0.0, "label smoothing", low=0, below=1)
    z_loss: float = _field(0.0, "coefficient of the squared log-partition in the loss", low=0)
    batch_size: int = _field(32, "examples a step", low=1)
    epochs: float | None = _field(None, "passes over the training set; 20 if steps is unset", low=0)
    steps: int | None = _field(None, "optimizer steps; wins over epochs", low=0)
    schedule: str = _field("constant", "learning-rate schedule")
    warmup: float | None = _field(None, "share of the steps with linear warm-up", low=0, high=1)
    lr_gamma: float | None = _field(None, "factor at each drop of the step schedule", above=0)
    lr_drop_every: float | None = _field(None, "share of the steps between drops", above=0, high=1)
    lr_final: float | None = _field(None, "final learning rate over the peak", low=0, high=1)
    pct_start: float | None = _field(None, "share of the one-cycle rise", above=0, below=1)
    div_factor: float | None = _field(None, "one-cycle: peak over initial rate", low=1)
    precision: str = _field("float32", "compute precision; the slab is float32")
    # initialisation and seeds
    init: str = _field("default", "weight initialisation scheme")
    init_scale: float = _field(1.0, "factor on the initial weight matrices", above=0)
    seed: int = _field(0, "repetition; the default of the six seeds", low=0, high=2**32 - 1)
    init_seed: int | None = _field(None, "seed of the weights", low=0, high=2**32 - 1)
    order_seed: int | None = _field(None, "seed of the data order", low=0, high=2**32 - 1)
    augment_seed: int | None = _field(None, "seed of the augmentation", low=0, high=2**32 - 1)
    dropout_seed: int | None = _field(None, "seed of dropout", low=0, high=2**32 - 1)
    noise_seed: int | None = _field(
        None, "seed of the label noise and of the training subset", low=0, high=2**32 - 1
    )
    diet_seed: int | None = _field(None, "seed of the diet", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for info in field_infos().values():
            value, problem = check_value(info, getattr(self, info.name))
            if problem is not None:
                problems.append(problem)
            else:
                object.__setattr__(self, info.name, value)
        if problems:
            raise SpecError(problems)
        if self.keep == 1:  # everything is kept: the run without a diet
            object.__setattr__(self, "score", "none")
        self._fill_conditional()
        if self.scorer is not None:
            object.__setattr__(self, "scorer", canonical_scorer(self.scorer))
        problems = diet_problems(self)
        if problems:
            raise SpecError(problems)
        for name in SEED_FIELDS:
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.seed)
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", 20.0)

    def _fill_conditional(self) -> None:
        """Give each conditional field its owner's default, or None where nothing reads it.

        A field that an owner decides itself (``fixes``: the activation of a norm that has its own)
        gets that value first.
        """
        found = [(owner, vocabulary(owner)) for owner in OWNERS]
        registries = [(owner, registry) for owner, registry in found if registry is not None]
        for owner, registry in registries:
            value = getattr(self, owner)
            entry = None if value is None else registry[value]
            for name, fixed in getattr(entry, "fixes", {}).items():
                object.__setattr__(self, name, fixed)
        conditional: set[str] = set()
        read: dict[str, object] = {}
        for owner, registry in registries:
            for name in registry:
                conditional.update(getattr(registry[name], "fields", {}))
            value = getattr(self, owner)
            if owner in conditional:  # read by an owner before it, or by none
                value = (value or read[owner]) if owner in read else None
            if value is not None:
                read.update(getattr(registry[value], "fields", {}))
        for name in conditional:
            if name not in read:
                object.__setattr__(self, name, None)
            elif getattr(self, name) is None:
                object.__setattr__(self, name, read[name])

    def resolve(self, train_examples: int) -> RunSpec:
        """Return this spec with ``train_size``, ``steps`` and ``epochs`` as numbers.

        An epoch is ``train_size // batch_size`` steps: the remainder of a shuffled epoch is
        dropped, so that every step of every model has the same shape. On a diet with the budget
        ``steps`` it is as long as without the diet; with ``epochs``, as the kept examples last.

        Args:
            train_examples: training examples of the data set.

        Raises:
            SpecError: the training set is smaller than ``train_size``, or it or what the diet
                keeps is smaller than one batch.
        """
        size = self.train_size if self.train_size is not None else train_examples
        problems = []
        if size > train_examples:
            allowed = f"<= {train_examples} ({self.data})"
            problems.append(Problem("train_size", size, "more than the data set has", allowed))
        elif self.batch_size > size:
            allowed = f"<= {size} (training examples)"
            problems.append(Problem("batch_size", self.batch_size, "more than one epoch", allowed))
        if problems:
            raise SpecError(problems)
        kept = kept_of(self, size)
        if kept < self.batch_size:
            message = f"keeps {kept} of {size} examples, fewer than one batch"
            allowed = f">= {self.batch_size / size:.3g} (batch_size = {self.batch_size})"
            raise SpecError([Problem("keep", self.keep, message, allowed)])
        per_epoch = (kept if self.budget == "epochs" else size) // self.batch_size
        steps = self.steps if self.steps is not None else round((self.epochs or 0.0) * per_epoch)
        return dataclasses.replace(self, train_size=size, steps=steps, epochs=steps / per_epoch)

    @property
    def examples(self) -> int:
        """Examples that a resolved run trains on."""
        return kept_of(self, int(self.train_size or 0))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch of a resolved run; on a diet, see :meth:`resolve`."""
        size = self.examples if self.budget == "epochs" else int(self.train_size or 0)
        return size // self.batch_size

    def identity(self) -> dict[str, object]:
        """Return what the run id is the hash of: every field that changes a bit of the result.

        A field that is None is left out, as is one of ``_LATER`` at its default: a field added
        later leaves old run ids alone.
        """
        values = self.to_dict()
        del values["seed"]
        if self.weight_decay == 0:
            del values["decay_mask"]
        for name in _LATER:
            if values.get(name) == RunSpec.__dataclass_fields__[name].default:
                del values[name]
        if self.steps is not None:
            del values["epochs"]
        if self.label_noise == 0 and values["train_size"] is None:
            del values["noise_seed"]
        if self.dropout == 0:
            del values["dropout_seed"]
        if self.augmentation == "none":
            del values["augment_seed"]
        if self.keep is None and self.dynamic == "none":
            del values["diet_seed"]
        given = {name: value for name, value in values.items() if value is not None}
        return {"version": SPEC_VERSION, **given}

    @property
    def run_id(self) -> str:
        """Sixteen hexadecimal digits: the sha256 of the canonical JSON of :meth:`identity`."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-ready."""
        return {name: getattr(self, name) for name in field_infos()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Build a spec from a mapping.

        Raises:
            SpecError: unknown fields (with the nearest known name) and bad values, all at once.
        """
        infos = field_infos()
        problems = [unknown_field(name, name) for name in values if name not in infos]
        good = {name: value for name, value in values.items() if name in infos}
        try:
            spec = cls(**good)
        except SpecError as error:
            raise SpecError([*problems, *error.problems]) from None
        if problems:
            raise SpecError(problems)
        return spec


def unknown_field(place: str, name: str) -> Problem:
    """Return the problem of a field name that no run spec has."""
    names = tuple(field_infos())
    close = nearest(name, names)
    fix = f"did you mean {close!r}?" if close else ""
    return Problem(place, None, f"unknown field {name!r}", ", ".join(names), fix)


_INFOS: dict[str, FieldInfo] = {}


def field_infos() -> Mapping[str, FieldInfo]:
    """Return a :class:`FieldInfo` for each run-spec field, in order."""
    if not _INFOS:
        for item in dataclasses.fields(RunSpec):
            kind, _, rest = cast(str, item.type).partition(" | ")
            _INFOS[item.name] = FieldInfo(
                name=item.name, kind=kind, optional=rest == "None", **item.metadata
            )
    return _INFOS
