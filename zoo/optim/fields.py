"""Fields that several optimizers read; what one optimizer alone reads is declared in its file.

An entry takes one with its own default: ``BETA1.at(0.95)``.
"""

from __future__ import annotations

from zoo.fields import Field

__all__ = [
    "ALPHA", "BETA1", "BETA2", "EPS", "MOMENTUM", "NESTEROV", "PROJECTION_DECAY",
    "PROJECTION_DELTA",
]  # fmt: skip

MOMENTUM = Field("momentum", "float", 0.9, "momentum factor", low=0, below=1)
NESTEROV = Field("nesterov", "bool", default=False, doc="Nesterov momentum", per="cohort")
BETA1 = Field("beta1", "float", 0.9, "decay of the first moment", low=0, below=1)
BETA2 = Field("beta2", "float", 0.999, "decay of the second moment", low=0, below=1)
ALPHA = Field("alpha", "float", 0.9, "decay of the squared average", low=0, below=1)
EPS = Field("eps", "float", 1e-8, "term added to the denominator", above=0, aka="epsilon")
PROJECTION_DELTA = Field(
    "projection_delta", "float", 0.1, "cosine below which SGDP, AdamP project", low=0
)
PROJECTION_DECAY = Field(
    "projection_decay", "float", 0.1, "factor on the decay of what they project", low=0
)
