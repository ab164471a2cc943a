"""What the GPU benchmarks share: timing by device events, the copy rate, the environment."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable

import torch

from zoo.arithmetic import pinned

#: Seconds that one round of calls fills.
BUDGET = 0.3

NO_DEVICE = (
    "There is no CUDA device here, so nothing was measured and there are no figures.\n"
    "On a machine that has one, this same command measures and prints them."
)


def environment() -> dict[str, object]:
    """Device, versions and date; the commit where git is at hand."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    found: dict[str, object] = {
        "torch": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip() or None,
    }  # fmt: skip
    if torch.cuda.is_available():
        import triton

        found |= {"device": torch.cuda.get_device_name(), "triton": triton.__version__}
    return found


def begin(*, smoke: bool) -> tuple[str, dict[str, object]] | None:
    """Return the device to measure on and the environment, which is printed; None without one.

    Args:
        smoke: run on the CPU, for no figures.
    """
    if not smoke and not torch.cuda.is_available():
        print(NO_DEVICE)
        return None
    pinned().__enter__()  # never left: nothing else runs in this process
    found = environment()
    print("  ".join(f"{name}={value}" for name, value in found.items()))
    return "cpu" if smoke else "cuda", found


def seconds(
    call: Callable[[], object], *, device: str, budget: float | None = None, rounds: int = 5
) -> float:
    """Return the median seconds of one call, over rounds of as many calls as fill ``budget``
    seconds (:data:`BUDGET` unless given).

    On a GPU by events around a whole round, so that what the host adds to a call is in it where it
    shows and hidden where it does not, as in training. On a CPU (a smoke test) one call, no figure.
    """
    call()
    if device == "cpu":
        return float("nan")
    call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    once = max(time.perf_counter() - start, 1e-6)
    count = max(3, min(2000, int((budget or BUDGET) / once)))
    found = []
    for _ in range(rounds):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(count):
            call()
        last.record()
        torch.cuda.synchronize()
        found.append(first.elapsed_time(last) / 1e3 / count)
    return statistics.median(found)


def copy_rate(device: str) -> float:
    """Return the bytes a second, read plus written, of copying 1 GiB: the card's own measure."""
    if device == "cpu":
        return float("nan")
    source = torch.empty(1 << 28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device=device)
