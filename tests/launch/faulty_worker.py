"""A worker that sleeps or dies after chosen commits; the first argument names the faults (JSON).

``sleep``: seconds after every commit. ``die_at``: commits k after which the process kills itself,
once for each task and k where ``once`` is set. ``raise_at``: commit k after which an exception is
raised. ``before``: the fault comes before the commit. ``task``: only here, ``[cohort, index]``.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main():
    faults = json.loads(Path(sys.argv.pop(1)).read_text())
    log = Path(faults["log"])

    def note(*words):
        with log.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    import zoo.stages.train as worker
    from zoo.launch import worker_process
    from zoo.store import TaskWriter

    note("start", os.getpid())

    class Faulty(TaskWriter):
        def commit(self, checkpoint):
            k, task = checkpoint.index, self.task
            meant = faults.get("task", [task.cohort, task.index]) == [task.cohort, task.index]
            if not faults.get("before"):
                super().commit(checkpoint)
            time.sleep(faults.get("sleep", 0))
            mark = log.with_name(f"{task.cohort}-{task.index}-{k}")
            if (
                meant
                and k in faults.get("die_at", [])
                and not (faults.get("once") and mark.exists())
            ):
                mark.touch()
                note("die", task.cohort, task.index, k)
                os.kill(os.getpid(), signal.SIGKILL)
            if meant and k == faults.get("raise_at"):
                note("raise", task.cohort, task.index, k)
                raise RuntimeError(f"broken on purpose at {k}")
            if faults.get("before"):
                super().commit(checkpoint)

    worker.TaskWriter = Faulty
    worker_process.main()


main()
