"""What `zoo --help` says beside the verbs themselves: descriptions, examples, groups."""

from __future__ import annotations

__all__ = ["DESCRIPTION", "EXAMPLES", "GROUPS", "PLAN_EXAMPLES", "QUERY_EXAMPLES", "RUN_EXAMPLES"]

DESCRIPTION = """\
phasezoo: train a zoo of neural networks from one sweep file, and query it as a dataset.

A sweep file (TOML) names axes; every combination is a model. `zoo run` trains them stacked, many
at a time, and records each one's whole trajectory in one Zarr store.
"""

EXAMPLES = """\
examples:
  zoo plan sweeps/quickstart.toml
  zoo run sweeps/quickstart.toml --out datasets_out/quickstart.zarr
  zoo status datasets_out/quickstart.zarr --watch
  zoo query datasets_out/quickstart.zarr "width >= 64 and norm == 'layer' and epoch == 20" \\
      --columns run_id,width,test_accuracy --sort=-test_accuracy --limit 10
  zoo report datasets_out/quickstart.zarr --by width,norm --plot quickstart.png

Options may stand anywhere after the verb. With --json, standard output is one JSON document; an
error is {"error": {"type", "message", "problems"}}.
exit codes: 0 as asked, 1 an error, 2 incomplete or problems found.
ZOO_DEBUG=1 shows the traceback of an error.
"""

QUERY_EXAMPLES = """\
A row is a recorded checkpoint. The predicate is Python comparisons over the columns, with
and, or, not, in; a negative epoch or step counts from each run's end (-1: its last checkpoint).

examples:
  zoo query z.zarr "epoch == -1" --sort=-test_accuracy --limit 5
  zoo query z.zarr "norm in ['batch', 'layer'] and 0.5 < test_accuracy < 0.9" --csv > rows.csv
  zoo query z.zarr "status == 'diverged'" --columns run_id,lr,diverged_step --json
"""

PLAN_EXAMPLES = """\
examples:
  zoo plan sweeps/quickstart.toml
  zoo plan sweeps/quickstart.toml --out datasets_out/quickstart.zarr   # what the store lacks
  zoo plan --check sweeps/*.toml                                       # what is wrong with them
"""

RUN_EXAMPLES = """\
Safe to interrupt (Ctrl-C, kill, power cut) and to repeat: the same command resumes from the last
checkpoint, retries tasks that failed, and does nothing where all is done. A sweep with more runs
extends the store, after saying how it differs. Two of these on one store share the work.

examples:
  zoo run sweeps/quickstart.toml --out datasets_out/quickstart.zarr
  zoo run sweeps/quickstart.toml --out datasets_out/quickstart.zarr --dry-run
  zoo run datasets_out/quickstart.zarr --workers 4        # finish a store
"""

#: The verbs of `zoo --help`; one that is in no group stands below "others".
GROUPS = {
    "make a zoo": ("init", "plan", "run", "score"),
    "look at it": ("status", "query", "info", "report", "diets"),
    "measure and label it": ("landscape", "label"),
    "use it as a dataset": ("split", "audit", "snapshot", "export", "bench"),
    "check it": ("verify", "repair", "reproduce"),
    "on a cluster": (
        "submit", "retry", "cancel", "hold", "release", "errors", "logs", "doctor",
    ),
    "what there is": ("list", "version", "completion"),
}  # fmt: skip
