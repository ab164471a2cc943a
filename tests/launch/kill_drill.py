"""Runs verbs in forked children, each of which can kill itself before its n-th file operation.

One process imports everything once. It reads a line of JSON for each job from its input (``words``
of a command line or Python ``code``, ``folder``, ``at``: the operation, 0 = none) and answers with
one: ``code`` (of the exit; -9 = killed), ``operations`` and what was ``said``.
"""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

EVENTS = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(folder, at):
    """Kill this process before its ``at``-th change below the folder; return the count so far."""
    count, own = [0], os.getpid()

    def step(half=None):
        if os.getpid() != own:
            return
        count[0] += 1
        if count[0] == at:
            if half is not None:
                half()
            os.kill(own, signal.SIGKILL)

    def below(path):
        if isinstance(path, int):
            return False
        return os.path.abspath(os.fsdecode(path)).startswith(str(folder))  # noqa: PTH100

    def hook(event, args):
        if event == "open":
            name, _, flags = args
            if isinstance(flags, int) and flags & WRITING and name is not None and below(name):
                step()
        elif event == "subprocess.Popen" or (event in EVENTS and below(args[0])):
            step()

    fsync, write = os.fsync, os.write

    def synced(handle):
        step()
        fsync(handle)

    def written(handle, data):
        step(lambda: write(handle, bytes(data)[: len(data) // 2]))
        return write(handle, data)

    os.fsync, os.write = synced, written
    sys.addaudithook(hook)
    return count


def child(job, answer):
    import torch

    torch.set_num_threads(1)
    os.chdir(job["folder"])
    os.environ.update(job.get("environment", {}))
    said, code = io.StringIO(), 99
    count = watch(job["folder"], job["at"])
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            if "code" in job:
                exec(job["code"], {})
                code = 0
            else:
                from zoo.cli import main

                code = main(job["words"])
    except BaseException:  # noqa: BLE001 - whatever it is, the test reads it
        said.write(traceback.format_exc())
    Path(answer).write_text(
        json.dumps({"code": code, "operations": count[0], "said": said.getvalue()[-4000:]})
    )
    os._exit(0)


def main():
    import importlib
    import pkgutil

    import h5py  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import safetensors.numpy  # noqa: F401
    import sklearn.datasets  # noqa: F401

    import zoo

    for module in pkgutil.walk_packages(zoo.__path__, "zoo."):
        if not module.name.endswith("__main__") and not module.name.startswith("zoo.kernels"):
            importlib.import_module(module.name)
    answer = Path(tempfile.mkdtemp()) / "answer"
    for line in sys.stdin:
        job = json.loads(line)
        answer.unlink(missing_ok=True)
        pid = os.fork()
        if not pid:
            child(job, answer)
        _, status = os.waitpid(pid, 0)
        found = {"code": os.waitstatus_to_exitcode(status), "operations": 0, "said": ""}
        if answer.exists():
            found = json.loads(answer.read_text())
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
