"""What data sets and score files hold, and whether it is what a store was planned with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from zoo.data import DATASETS, Dataset, load
from zoo.data.base import data_error
from zoo.data.places import score_path
from zoo.data.score_file import read_scores, values_fingerprint
from zoo.errors import Problem, ZooError
from zoo.registry import PLUGIN_FIELD
from zoo.spec.diet import SCORE_FILE
from zoo.spec.plugged import plugged_entries, plugin_hash
from zoo.spec.run import RunSpec
from zoo.train.plan import Plan

__all__ = ["Contents", "check_unchanged", "read_contents"]

_ANOTHER = "its content is not what the store was planned with"


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The content behind the names in a sweep.

    Args:
        data: key of a data set -> what it is here and now.
        scores: (data set, score file) -> sha256 of the scores.
    """

    data: Mapping[str, Dataset]
    scores: Mapping[tuple[str, str], str]

    def hashes(self, run: RunSpec) -> dict[str, str]:
        """Return the content fields of a run: those of files whose names say nothing."""
        found = {}
        if DATASETS[run.data].own:
            found["data_sha256"] = self.data[run.data_key].fingerprint
        if (run.data, run.score) in self.scores:
            found["score_sha256"] = self.scores[run.data, run.score]
        plugin = plugin_hash(run)
        if plugin is not None:
            found[PLUGIN_FIELD.name] = plugin
        return found


def read_contents(runs: Sequence[RunSpec], paths: Mapping[str, str]) -> Contents:
    """Read every data set and score file that runs name.

    Args:
        runs: the runs.
        paths: data set or score file -> path.

    Raises:
        MissingDataError, DataError: what is missing or cannot be read, all of it in one error.
    """
    data: dict[str, Dataset] = {}
    scores: dict[tuple[str, str], str] = {}
    faults: list[ZooError] = []
    wanted = {run.data_key: run for run in runs}
    for key, run in sorted(wanted.items()):
        try:
            data[key] = load(run.data, path=paths.get(run.data), **run.options_of("data"))
        except ZooError as error:
            faults.append(error)
    named = {
        (run.data, run.score, run.data_key) for run in runs if run.score.startswith(SCORE_FILE)
    }
    for name, score, key in sorted(named):
        if key not in data:
            continue
        try:
            found = read_scores(score_path(score, paths), len(data[key].train_y), name=score)
            scores[name, score] = values_fingerprint(found)
        except ZooError as error:
            faults.append(error)
    if len(faults) > 1:
        raise type(faults[0])("\n".join(str(error) for error in faults)) from faults[0]
    if faults:
        raise faults[0]
    return Contents(data, scores)


def check_unchanged(
    contents: Contents,
    runs: Iterable[RunSpec],
    base: Plan,
    known_scores: Mapping[str, str],
    source: str,
) -> None:
    """Make sure that a store's names still stand for what it was planned with.

    Args:
        contents: what they stand for now.
        runs: of the sweep, unresolved.
        base: the plan of the store.
        known_scores: score file -> sha256, of stores whose runs do not have it.
        source: for the message.

    Raises:
        DataError: they do not; everything that has changed is in one error.
    """
    scores = {**known_scores, **_scores_of(run for c in base.cohorts for run in c.runs)}
    problems = [
        _changed("data", dataset.name, dataset.fingerprint, base.data[key]["fingerprint"])
        for key, dataset in contents.data.items()
        if key in base.data and base.data[key]["fingerprint"] != dataset.fingerprint
    ]
    problems += [
        _changed("score", score, found, scores[score])
        for score, found in {score: sha for (_, score), sha in contents.scores.items()}.items()
        if scores.get(score, found) != found
    ]
    problems += _changed_plugins(runs, base)
    if problems:
        raise data_error(source, problems)


def _changed_plugins(runs: Iterable[RunSpec], base: Plan) -> list[Problem]:
    """Return the entries that a store's plug-ins brought, and that now have other content."""
    planned: dict[str, set[str]] = {}
    for cohort in base.cohorts:
        for entry, sha256 in cohort.plugins.items():
            planned.setdefault(entry, set()).add(sha256)
    found = {entry: sha for run in runs for entry, sha in plugged_entries(run).items()}
    problems = []
    for entry, sha256 in found.items():
        if entry not in planned or sha256 in planned[entry]:
            continue
        (first, *_) = sorted(planned[entry])
        kind, _, name = entry.partition(" ")
        fix = (
            f"put the original back ({base.plugins.get(first, 'its path is not known')}); to add"
            f" the new content, register it under another name than {name}; or start a new store"
            " with another --out"
        )
        message = f"{_ANOTHER}: the sha256 of its plug-in is {sha256}, planned was {first}"
        problems.append(Problem(kind, name.strip("'"), message, fix=fix))
    return problems


def _scores_of(runs: Iterable[RunSpec]) -> dict[str, str]:
    return {run.score: run.score_sha256 for run in runs if run.score_sha256 is not None}


def _changed(field: str, name: str, found: str, planned: str) -> Problem:
    fix = f"put the original back, or give its path by --data '{name}=PATH'"
    if field == "score" or DATASETS[name].own:
        other = f"{name.partition(':')[0]}:OTHER"
        fix += f"; to add the new content, give it a name of its own ({field} = {other!r})"
    message = f"{_ANOTHER}: its sha256 is {found}, planned was {planned}"
    return Problem(field, name, message, fix=f"{fix}; or start a new store with another --out")
