"""A small network over weights that no permutation of hidden units can confuse.

Message passing on the graph of units, after Kofinas et al. 2024 (arXiv 2403.12143) and Zhou et al.
2023 (arXiv 2302.14040), in the plainest form: a unit's state starts from its bias and norm values,
then takes sums over its incoming and its outgoing weights of (edge feature) × (state of the other
unit), and hidden layers are read by the mean and the deviation over their units. Models of any
width and depth go through the same parameters.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.dataset.layers import LayerTensors
from zoo.seeds import Stream, uniform

__all__ = ["EDGE_FEATURES", "NORM_VALUES", "NeuralGraph"]

#: Features that are made of the values of a kernel between two units.
EDGE_FEATURES = 2
#: Most values that a norm has for a unit.
NORM_VALUES = 4
_POSITIONS = 8


class NeuralGraph(nn.Module):
    """Predicts ``outputs`` numbers of a model from its weights; hidden units have no order.

    Args:
        outputs: numbers for each model.
        taps: values of the largest kernel (1 for an MLP, 9 for 3 × 3 convolutions).
        width: size of a unit's state.
        rounds: of message passing.
    """

    def __init__(self, outputs: int, *, taps: int = 1, width: int = 16, rounds: int = 2) -> None:
        super().__init__()
        self.taps = taps
        self.ends = nn.Linear(_POSITIONS, width)
        self.units = nn.Linear(1 + NORM_VALUES + 1, width)
        self.edges = nn.Linear(taps, EDGE_FEATURES)
        sums = width * (1 + EDGE_FEATURES)
        self.forth = nn.ModuleList(nn.Linear(sums, width) for _ in range(rounds))
        self.back = nn.ModuleList(nn.Linear(sums, width) for _ in range(rounds))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(rounds))
        self.head = nn.Sequential(
            nn.Linear(8 * width, 4 * width), nn.SiLU(), nn.Linear(4 * width, outputs)
        )

    def initialize(self, seed: int) -> None:
        """Draw every parameter anew: matrices uniform on ±1/√fan-in, biases 0, scales 1."""
        for number, (name, value) in enumerate(self.named_parameters()):
            with torch.no_grad():
                if value.dim() == 2:
                    drawn = uniform(seed, Stream.INIT, number, value.numel()) * 2 - 1
                    bound = 1 / math.sqrt(value.shape[1])
                    value.copy_(torch.from_numpy(drawn * bound).view(value.shape))
                else:
                    value.fill_(float(name.startswith("norms") and name.endswith("weight")))

    def forward(self, x: LayerTensors) -> Tensor:
        """Return predictions ``[B, outputs]``."""
        edges = [self._edge_features(w.squeeze(1)) for w in x.weights]
        states = self._first_states(x)
        for forth, back, norm in zip(self.forth, self.back, self.norms, strict=True):
            new = list(states)
            for i, e in enumerate(edges):
                new[i + 1] = new[i + 1] + forth(_messages(e, states[i], states[i + 1]))
                new[i] = new[i] + back(_messages(e.transpose(1, 2), states[i + 1], states[i]))
            states = [norm(nn.functional.silu(s)) for s in new]
        hidden = states[1:-1] or states[-1:]
        whole = torch.stack([_pooled(s) for s in hidden]).mean(0)
        read = [_pooled(hidden[0]), whole, _pooled(hidden[-1]), _pooled(states[-1])]
        found: Tensor = self.head(torch.cat(read, 1))
        return found

    def _edge_features(self, w: Tensor) -> Tensor:
        """Return ``[B, out, in, EDGE_FEATURES]`` of kernels ``[B, out, in, ...]``.

        Kernels are taken in units of their fan-in, so that widths compare.
        """
        w = w.flatten(3) if w.dim() > 3 else w.unsqueeze(3)
        w = w * math.sqrt(w.shape[2] * w.shape[3])
        if w.shape[3] < self.taps:
            w = nn.functional.pad(w, (0, self.taps - w.shape[3]))
        mixed = self.edges(w)
        # one feature keeps the sign and the size, the other saturates
        return torch.cat([mixed[..., :1], torch.tanh(mixed[..., 1:])], 3)

    def _first_states(self, x: LayerTensors) -> list[Tensor]:
        """Return the state of each layer's units, ``[B, units, width]``.

        Inputs and outputs know their place; hidden units do not.
        """
        count, _, _, inputs = x.weights[0].shape[:4]
        norms = dict(zip((n.rpartition(".")[0] for n in x.norm_names), x.norms, strict=True))
        like = x.weights[0]
        states = [self.ends(_places(inputs, like)).expand(count, -1, -1)]
        for number, (name, bias) in enumerate(zip(x.names, x.biases, strict=True)):
            values = bias.squeeze(1).unsqueeze(2)
            norm = norms.get(name.rpartition(".")[0])
            extra = values.new_zeros(*values.shape[:2], NORM_VALUES)
            if norm is not None:
                extra[..., : norm.shape[1]] = norm.transpose(1, 2)
                extra = extra.sign() * extra.abs().log1p()
            depth = values.new_full(values.shape, (number + 1) / len(x.names))
            state = self.units(torch.cat([values, extra, depth], 2))
            states.append(state)
        states[-1] = states[-1] + self.ends(_places(states[-1].shape[1], like))
        return states


def _messages(e: Tensor, source: Tensor, own: Tensor) -> Tensor:
    """Return ``[B, n, width · (1 + features)]``: own state, and the mean of edge × source state."""
    count = e.shape[2]
    sums = torch.einsum("boif,bid->bofd", e, source).flatten(2) / math.sqrt(count)
    return torch.cat([own, sums], 2)


def _pooled(state: Tensor) -> Tensor:
    """Return mean and deviation over units, ``[B, 2 · width]``."""
    return torch.cat([state.mean(1), (state.var(1, unbiased=False) + 1e-6).sqrt()], 1)


def _places(count: int, like: Tensor) -> Tensor:
    """Return sines and cosines of each unit's place, ``[1, count, 8]``."""
    place = torch.linspace(0, 1, count, dtype=like.dtype, device=like.device)
    rates = torch.pi * 2.0 ** torch.arange(_POSITIONS // 2, dtype=like.dtype, device=like.device)
    angles = place[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], 1).unsqueeze(0)
