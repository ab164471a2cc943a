"""A stage for tests: the norm of every model's last weights; some parts may die or fail."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

from zoo.stages import STAGES, FolderWork, Part
from zoo.store import DerivedColumn, StoreReader, publish


class Norms:
    name = "norms"

    def parts(self, path, settings):
        plan = StoreReader(path).plan
        return [Part(f"{t.cohort}.{t.index}", t.models, t.models) for t in plan.tasks()]

    def run_part(self, path, settings, key, paths):
        if settings.get("raise_in") == key:
            msg = "planted"
            raise ValueError(msg)
        for n in range(settings.get("deaths", 0)):
            mark = Path(settings["marks"], f"{key}-{n}")
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        reader = StoreReader(path)
        task = next(t for t in reader.plan.tasks() if f"{t.cohort}.{t.index}" == key)
        cohort = reader.cohort(task.cohort)
        rows = np.arange(task.start, task.stop)
        weights = cohort.read_weights(rows, cohort.last[rows])
        return {"norm": np.linalg.norm(weights.astype(np.float64), axis=1)}, {"rows": len(rows)}

    def finish(self, path, settings, folder, paths):
        plan = StoreReader(path).plan
        columns = []
        for cohort in plan.cohorts:
            parts = [folder.read(f"{cohort.id}.{t.index}")[0]["norm"] for t in cohort.tasks()]
            columns.append(
                DerivedColumn(cohort.id, "last_norm", ("model",), np.concatenate(parts), "L2")
            )
        publish(path, columns, stage=self.name, stage_id=folder.id)


@STAGES.register("norms")
def norms(store, settings, paths):
    return FolderWork(Norms(), store, settings, paths)


if __name__ == "__main__":  # the command of a worker that knows the stage
    from zoo.launch.worker_process import main

    main()
