"""A made-up 13 x 13 grid with the boundaries that the published picture has.

It is synthetic: the published numbers are not in this repository. The boundaries are straight lines
on log axes through points read off the published picture; the numbers grow with the distance from
them, in the published units, and carry noise between seeds.
"""

from __future__ import annotations

import csv

import numpy as np

WIDTHS = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128)
BATCHES = (16, 24, 32, 44, 64, 92, 128, 180, 256, 364, 512, 724, 1024)


def _line(x, points):
    """Interpolate (and extend) a line through points on log axes."""
    xs, ys = np.log(np.array(points, dtype=float)).T
    slopes = np.diff(ys) / np.diff(xs)
    part = np.clip(np.searchsorted(xs, x) - 1, 0, len(slopes) - 1)
    return ys[part] + slopes[part] * (x - xs[part])


def distances(width, batch):
    """Return signed distances (in log units): > 0 is unfinished, I, III and IV-B respectively."""
    x, y = np.log(width), np.log(batch)
    hot = _line(x, [(16, 44), (256, 33)]) - y  # above II|IV, on the wide side
    narrow = _line(y, [(44, 16), (130, 10), (2048, 6)]) - x  # left of I|III
    unfinished = np.where(y < np.log(44), np.maximum(hot, np.log(16) - x), narrow)
    # I lies below the line from (3, 16) to the triple point
    barrier_hard = y - _line(x, [(3, 16), (16, 44)])
    barrier_easy = np.log(16) - x
    similar = _line(x, [(23, 108), (38, 170), (256, 288)]) - y
    return unfinished, barrier_hard, barrier_easy, similar


def grid(seed=0, noise=0.02):
    """Return (drawn labels, columns) of the 169 cells."""
    rng = np.random.default_rng(seed)
    width, batch = (a.ravel() for a in np.meshgrid(WIDTHS, BATCHES))
    hard, barrier_hard, barrier_easy, similar = distances(width, batch)
    drawn = np.where(
        hard > 0,
        np.where(barrier_hard > 0, "I", "II"),
        np.where(barrier_easy > 0, "III", np.where(similar > 0, "IV-B", "IV-A")),
    )

    def jitter():
        return noise * rng.normal(size=len(width))

    loss = 0.01 * np.exp(4.0 * (hard + jitter()))
    mc_hard = np.where(barrier_hard > 0, -18.0, 6.0) * np.abs(barrier_hard + jitter())
    mc_easy = np.where(barrier_easy > 0, -1.5 - 6.0 * barrier_easy, -0.2) + 2 * jitter()
    columns = {
        "load": width,
        "temperature": batch,
        "train_loss": loss,
        "train_error": np.minimum(30.0 * np.maximum(loss - 0.004, 0.0), 60.0),
        "lambda_max": 20.0 * np.exp(1.2 * (hard + jitter())),
        "trace": 190.0 * np.exp(1.2 * (hard + jitter())),
        "mode_connectivity": np.where(hard > 0, mc_hard, mc_easy),
        "cka": np.where(hard > 0, 0.5, np.clip(0.71 + 0.05 * (similar + jitter()), 0.5, 0.8)),
    }
    return drawn, columns


def write(path, columns, **changes):
    """Write columns as CSV; a change is a new column, or None to leave one out."""
    columns = {k: v for k, v in {**columns, **changes}.items() if v is not None}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path
