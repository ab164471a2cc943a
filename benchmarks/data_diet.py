"""The findings of the data-diet literature, read from a store of a shipped sweep.

    zoo run sweeps/data_diet.toml --out datasets_out/data_diet.zarr
    python -m benchmarks.data_diet datasets_out/data_diet.zarr --out FILE

Every accuracy is a mean over the seeds with the half width of its 95 % confidence interval
(Student's t); differences have the interval of Welch's t. Exit code 1 if a finding does not hold.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

import numpy as np
from scipy import stats

import zoo
from zoo.provenance import fingerprint
from zoo.report.diet_accuracy import LEVEL, accuracy_by_keep
from zoo.report.score_tables import score_report


def difference(a, b):
    """Return mean(a) - mean(b) and the half width of its confidence interval (Welch)."""
    result = stats.ttest_ind(a, b, equal_var=False)
    low, high = result.confidence_interval(LEVEL)
    return float(np.mean(a) - np.mean(b)), float((high - low) / 2)


def read(path):
    """Return the numbers that the findings depend on."""
    cells = {
        (cell.label_noise, cell.rule, cell.keep): np.array(cell.values)
        for cell in accuracy_by_keep(zoo.open(path), by=())
    }
    return cells, score_report(path)


def findings(path):
    """Return a row (finding, numbers in words, whether it holds) for each finding."""
    cells, tables = read(path)
    clean = {(rule, keep): v for (noise, rule, keep), v in cells.items() if noise == 0}
    strata = next(rule for rule, _ in clean if "stratified" in rule)
    hard, chance, full = "el2n@5 hardest", "random", clean["full", 1.0]
    small = sorted({k for r, k in clean if r == hard and k <= 0.1})
    rows = []

    gap, half = difference(clean[hard, 0.5], full)
    over, width = difference(clean[hard, 0.5], clean[chance, 0.5])
    rows.append(
        (
            "(i) EL2N at epoch 5, hardest half: within 0.5 points of the whole set, above random",
            f"{shown(clean[hard, 0.5])}; whole set {shown(full)}; random half"
            f" {shown(clean[chance, 0.5])}; minus whole {points(gap, half)}, minus random"
            f" {points(over, width)}",
            gap > -0.005 and over > 0,
        )
    )
    for keep in small:
        gap, half = difference(clean[hard, keep], clean[chance, keep])
        rows.append(
            (
                f"(ii) hardest {keep:.0%}: below random",
                f"{shown(clean[hard, keep])}, random {shown(clean[chance, keep])};"
                f" {points(gap, half)}",
                gap + half < 0,
            )
        )
    for keep in small:
        gap, half = difference(clean[strata, keep], clean[hard, keep])
        rows.append(
            (
                f"(iii) coverage-centric {keep:.0%}: above hardest",
                f"{shown(clean[strata, keep])}, hardest {shown(clean[hard, keep])};"
                f" {points(gap, half)}",
                gap - half > 0,
            )
        )
    for keep in sorted({k for r, k in clean if r == "grand@0 hardest"}):
        gap, half = difference(clean["grand@0 hardest", keep], clean[chance, keep])
        rows.append(
            (
                f"(iv) GraNd at initialisation, {keep:.0%}: no better than random",
                f"{shown(clean['grand@0 hardest', keep])}, random {shown(clean[chance, keep])};"
                f" {points(gap, half)}",
                gap - half <= 0,
            )
        )
    said = {
        (t["scorer"]["label_noise"], row["score"], row["epoch"]): row
        for t in tables
        for row in t["scores"]
    }
    early, late = said[0.0, "grand", 0.0], said[0.0, "el2n", 5.0]
    rows.append(
        (
            "(iv) GraNd at initialisation follows the input norm, at epoch 5 it does not",
            f"Spearman {early['input_norm']:.2f}, at epoch 5"
            f" {said[0.0, 'grand', 5.0]['input_norm']:.2f}",
            early["input_norm"] > 0.5 > said[0.0, "grand", 5.0]["input_norm"],
        )
    )
    rows.append(
        (
            "(iv) EL2N ranks are stable over seeds at epoch 5, at initialisation they are not",
            f"Spearman of two models {late['seeds_one']:.2f}, of two means of five"
            f" {late['seeds_halves']:.2f}; at epoch 0 {said[0.0, 'el2n', 0.0]['seeds_one']:.2f} and"
            f" {said[0.0, 'el2n', 0.0]['seeds_halves']:.2f}",
            late["seeds_one"] > 0.6 and late["seeds_halves"] > 0.8,
        )
    )
    noise, noisy = next((n, row) for (n, s, _), row in said.items() if n > 0 and s == "el2n")
    rows.append(
        (
            "(v) wrong labels stand at the top of EL2N: precision of the top 10 %",
            f"{noisy['noise_precision']:.3f}, base rate {noisy['noise_base']:.3f}: a lift of"
            f" {noisy['noise_lift']:.1f}",
            noisy["noise_lift"] > 3,
        )
    )
    clean_up = cells[noise, "el2n@5 easiest", 0.9], cells[noise, chance, 0.9]
    gap, half = difference(*clean_up)
    rows.append(
        (
            "(v) without that top 10 %: not below a random 90 %",
            f"{shown(clean_up[0])}, random {shown(clean_up[1])}; {points(gap, half)}",
            gap + half > 0,
        )
    )
    return rows


def shown(values):
    half = stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * stats.sem(values)
    return f"{100 * np.mean(values):.2f} ± {100 * half:.2f} %"


def points(gap, half):
    return f"{100 * gap:+.2f} ± {100 * half:.2f} points"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--out", help="also write a Markdown file")
    args = parser.parse_args(argv)
    rows = findings(args.store)
    opened = zoo.open(args.store)
    runs = len(opened.query("step == 0"))
    machine = fingerprint()
    lines = [
        f"# Findings of the sweep {opened.plan.name}",
        "",
        f"{runs} models, {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}, {machine['cpu']}, torch"
        f" {machine['versions']['torch']}, Python {machine['python']}. Accuracies on the test set:"
        " mean over seeds ± half of the 95 % confidence interval.",
        "",
        "```sh",
        f"zoo run sweeps/{opened.plan.name}.toml --out datasets_out/{opened.plan.name}.zarr",
        f"python -m benchmarks.data_diet datasets_out/{opened.plan.name}.zarr",
        "```",
        "",
        "| finding | measured | holds |",
        "|---|---|---|",
        *(f"| {name} | {words} | {'yes' if holds else 'NO'} |" for name, words, holds in rows),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        Path(args.out).write_text(text, encoding="utf-8")
    return 0 if all(holds for _, _, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
