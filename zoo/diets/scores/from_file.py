"""A user's own score: one number a training example, from a file."""

from __future__ import annotations

from zoo.data.score_file import read_scores
from zoo.diets.scores.base import SCORES, Score

SCORES.register("file:PATH")(
    Score(kind="file", doc="a user's own, as file:PATH", source="", compute=read_scores)
)
