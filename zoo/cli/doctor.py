"""``zoo doctor``: what a cluster offers to a profile, and what will bite."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from zoo.cli.show import print_json

__all__ = ["add_verbs", "doctor"]


def add_verbs(verbs: Any, verb: Callable[..., Any], json: Callable[..., None]) -> None:
    """Add the verb of this module."""
    one = verb(
        verbs, "doctor", "zoo.cli.doctor:doctor",
        "examine a cluster profile: what the cluster offers, and what will bite",
    )  # fmt: skip
    one.add_argument("profile", metavar="PROFILE", help="the name of a file in slurm/, or its path")
    json(one)


def doctor(args: argparse.Namespace) -> int:
    """Examine a profile."""
    from zoo.launch.doctor import examine
    from zoo.launch.profile import load_profile

    found = examine(load_profile(args.profile))
    worst = any(finding.level == "error" for finding in found)
    if args.json:
        print_json([finding.to_json() for finding in found])
        return 2 if worst else 0
    for finding in found:
        print(f"{finding.level:<8} {finding.topic:<11} {finding.text}")
    return 2 if worst else 0
