"""Arithmetic that depends on nothing but its inputs: what the calling process has set is set aside.

torch and numpy compute by settings of the whole process: precision of matrix products, default type
and device, autocast, threads, treatment of tiny numbers, ... A program that trains networks of its
own changes some of them (``torch.set_float32_matmul_precision("medium")`` is the usual advice), and
the same spec would then give other weights. Whatever computes values that are recorded, compared or
handed out runs inside :class:`pinned`: every setting has the value of a fresh process with one
thread, and gets the caller's value back at the end.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ContextDecorator, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.overrides
import torch.utils._device
from torch.utils import _python_dispatch

from zoo.errors import TrainError

__all__ = [
    "BIT_VARIABLES", "SETTINGS", "THREAD_SETTINGS", "Setting", "bit_variables", "pinned",
    "pinned_compiler",
]  # fmt: skip

#: Variables by which oneDNN rounds float32 products, for the whole process and past any setting.
_FPMATH = ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE")
#: Variables that choose among exact algorithms and so may change the last bits; they are recorded.
BIT_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "DNNL_MAX_CPU_ISA", "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "TORCH_BLAS_PREFER_CUBLASLT",
)  # fmt: skip

#: Modules that load a BLAS library of their own.
_WITH_BLAS = ("numpy", "scipy.linalg", "scipy.linalg.blas", "scipy.sparse.linalg", "sklearn")

_Write = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of the process.

    Args:
        name: as its library calls it.
        read: returns it.
        write: sets it.
        value: what it is pinned to.
    """

    name: str
    read: Callable[[], Any]
    write: _Write
    value: Any


def _flag(owner: Any, name: str, *, value: bool) -> Setting:
    where = str(getattr(owner, "__name__", type(owner).__name__))
    write: _Write = lambda new: setattr(owner, name, new)  # noqa: E731
    return Setting(f"{where}.{name}", lambda: getattr(owner, name), write, value)


def _flushes_tiny_numbers() -> bool:
    """Return whether this thread's processor takes subnormal numbers for zero."""
    return bool(np.float64(sys.float_info.min) * np.float64(0.5) == 0.0)


def _autocast(device: str) -> Setting:
    write: _Write = lambda new: torch.set_autocast_enabled(device, new)  # noqa: E731
    return Setting(
        f"autocast on {device}", lambda: torch.is_autocast_enabled(device), write, value=False
    )


def _deterministic(new: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(new[0], warn_only=new[1])


def _anomaly(new: tuple[bool, bool]) -> None:
    torch.autograd.set_detect_anomaly(new[0], check_nan=new[1])


def _reduced(kind: str) -> Setting:
    """Return whether cuBLAS may sum half types in themselves, and split sums; it may, at first."""
    name = f"allow_{kind}_reduced_precision_reduction"
    read = getattr(torch._C, f"_get_cublas_{name}")
    write: Any = getattr(torch._C, f"_set_cublas_{name}")
    if isinstance(read(), bool):  # older versions know the first of the two alone
        return Setting(f"cuBLASModule.{name}", read, write, value=True)
    return Setting(f"cuBLASModule.{name}", read, lambda new: write(*new), (True, True))


def _attention(kind: str) -> Setting:
    """Return whether a fused kernel of attention may be taken; on CPUs, flash is one."""
    read: Any = getattr(torch.backends.cuda, f"{kind}_sdp_enabled")
    return Setting(f"{kind}_sdp", read, getattr(torch._C, f"_set_sdp_use_{kind}"), value=False)


def _threads(new: int) -> None:
    torch.set_num_threads(new)


#: What is pinned for the calling thread; beside it modes, gradients and numpy's errors are.
THREAD_SETTINGS: tuple[Setting, ...] = (
    Setting("threads", torch.get_num_threads, _threads, 1),
    _autocast("cpu"),
    _autocast("cuda"),
    Setting("flush denormal", _flushes_tiny_numbers, torch.set_flush_denormal, value=False),
)

#: What is pinned for the whole process; beside it products of float32 and BLAS threads are.
SETTINGS: tuple[Setting, ...] = (
    Setting("default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    Setting(
        "deterministic algorithms",
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        _deterministic,
        (False, False),
    ),
    Setting(
        "anomaly detection",
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        _anomaly,
        (False, True),
    ),
    _flag(torch.backends.mkldnn, "enabled", value=True),
    _flag(torch.backends.mkldnn, "deterministic", value=False),
    Setting(
        "torch.backends.nnpack.enabled",
        torch._C._get_nnpack_enabled,
        torch._C._set_nnpack_enabled,
        value=True,
    ),
    # The order in which three factors are contracted must not depend on an installed package.
    _flag(torch.backends.opt_einsum, "enabled", value=False),
    # attention as plain products: fused kernels can be stacked over models by a loop alone, have
    # no forward-mode derivatives, and differ from one processor to the next
    _attention("flash"),
    _attention("mem_efficient"),
    _attention("cudnn"),
    _flag(torch.backends.cudnn, "enabled", value=True),
    _flag(torch.backends.cudnn, "benchmark", value=False),
    _flag(torch.backends.cudnn, "deterministic", value=True),
    _flag(torch.backends.cuda.matmul, "allow_fp16_accumulation", value=False),
    _reduced("fp16"),
    _reduced("bf16"),
)


class pinned(ContextDecorator):  # noqa: N801 - used like contextlib's own
    """Compute with one thread and with every setting of a fresh process, for a block or a function.

    Blocks may be nested, and several threads may each be in one. A generator must not hold it
    across a ``yield``: the caller's code would run under it.

    Args:
        gradients: ``"on"`` as in a fresh process, ``"off"``, or ``"as they are"`` for functions
            that a caller may differentiate through.

    Raises:
        TrainError: a variable of the environment makes products of float32 inexact.
    """

    def __init__(self, *, gradients: str = "on") -> None:
        self.gradients = gradients

    def __enter__(self) -> None:
        _check_environment()
        stack = ExitStack()
        try:
            if not _HERE.blocks:
                stack.enter_context(_OF_PROCESS)
                stack.enter_context(_of_thread())
            if self.gradients != "as they are":
                stack.enter_context(torch.inference_mode(mode=False))
                stack.enter_context(torch.set_grad_enabled(self.gradients == "on"))
        except BaseException:
            stack.close()
            raise
        _HERE.blocks.append(stack)

    def __exit__(self, *exception: object) -> None:
        _HERE.blocks.pop().close()


class _Here(threading.local):
    """The blocks that this thread is in; the first one has set what is pinned."""

    def __init__(self) -> None:
        self.blocks: list[ExitStack] = []


class _OfProcess:
    """What is set for all threads: the first one in sets it, the last one out sets it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                with ExitStack() as stack:
                    stack.enter_context(_exact_products())
                    stack.callback(_blas_threads, _blas_threads(1))
                    _set(SETTINGS, stack)
                    self._undo = stack.pop_all()
            self._inside += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._undo.close()


_HERE = _Here()
_OF_PROCESS = _OfProcess()


@contextmanager
def _of_thread() -> Iterator[None]:
    usual = np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")
    with usual, _no_modes(), ExitStack() as stack:
        _set(THREAD_SETTINGS, stack)
        yield


def _set(settings: Sequence[Setting], stack: ExitStack) -> None:
    """Pin settings; the stack gives the others' values back."""
    for setting in settings:
        before = setting.read()
        if before != setting.value:
            stack.callback(setting.write, before)
            setting.write(setting.value)


def _check_environment() -> None:
    for name in _FPMATH:
        value = os.environ.get(name, "strict")
        if value.lower() != "strict":
            msg = (
                f"{name} = {value!r} lets float32 products be rounded in this process, and models"
                " would not be what their specs say; unset it, or set it to STRICT, and start again"
            )
            raise TrainError(msg)


def bit_variables() -> dict[str, str]:
    """Return those of :data:`BIT_VARIABLES` that are set."""
    return {name: os.environ[name] for name in BIT_VARIABLES if name in os.environ}


@contextmanager
def _no_modes() -> Iterator[None]:
    """Take off what intercepts calls to torch, a default device among it."""
    # none of it is public; torch's own compiler sets modes aside in the same way
    devices: Any = torch.utils._device
    functions: Any = torch.overrides
    dispatch: Any = _python_dispatch
    modes = functions._get_current_function_mode_stack()
    device = devices.CURRENT_DEVICE
    try:
        for _ in modes:
            functions._pop_mode()
        devices.CURRENT_DEVICE = None
        if dispatch._len_torch_dispatch_stack():
            with dispatch._disable_current_modes():
                yield
        else:
            yield
    finally:
        devices.CURRENT_DEVICE = device
        for mode in modes:
            functions._push_mode(mode)


#: Where torch keeps a precision of float32 products: the outer ones are for what has none itself.
_PLACES = (
    ("generic", "all"), ("cuda", "all"), ("mkldnn", "all"), ("cuda", "matmul"), ("cuda", "conv"),
    ("cuda", "rnn"), ("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn"),
)  # fmt: skip


@contextmanager
def _exact_products() -> Iterator[None]:
    """Let products of float32 be float32 everywhere; both of torch's ways to set it are kept."""
    read, write = torch._C._get_fp32_precision_getter, torch._C._set_fp32_precision_setter
    held: list[tuple[tuple[str, str], str]] = []
    for place in _PLACES:  # a place without a value of its own reads as the one around it
        held.append((place, read(*place)))
        write(*place, "none")
    for place, _ in held:
        write(*place, "ieee")
    # the older settings are readable now that the newer ones do not contradict them
    product = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    convolution = _convolutions_use_tf32()
    torch.backends.cudnn.allow_tf32 = False
    for place, _ in held:
        write(*place, "ieee")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(product)
        torch.backends.cudnn.allow_tf32 = convolution
        for place, value in reversed(held):
            write(*place, value)


def _convolutions_use_tf32() -> bool:
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # it says yes, and the newer setting says no
        return True


@cache
def _blas_of(loaded: tuple[bool, ...]) -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def _blas() -> Any:
    """Return the BLAS libraries of the process; scipy brings one of its own when it is imported."""
    return _blas_of(tuple(name in sys.modules for name in _WITH_BLAS))


def _blas_threads(wanted: int) -> int:
    """Let numpy's linear algebra compute with so many threads; return how many there were."""
    found = 1
    for library in _blas().lib_controllers:
        found = max(found, library.num_threads)
        if library.num_threads != wanted:
            library.set_num_threads(wanted)
    return found


#: Settings of torch's compiler that change what a step computes, or whether it is compiled at all.
_DYNAMO = {"disable": False, "suppress_errors": False}
_INDUCTOR = {
    "cpp.dynamic_threads": False, "cpp.enable_floating_point_contract_flag": "off",
    "cpp.enable_unsafe_math_opt_flag": False, "cpp.simdlen": None, "cpp.threads": -1,
    "emulate_precision_casts": False, "fallback_random": False, "freezing": False,
    "max_autotune": False, "max_autotune_gemm": False, "max_autotune_pointwise": False,
    "use_fast_math": False,
}  # fmt: skip


@contextmanager
def pinned_compiler() -> Iterator[None]:
    """Compile as in a fresh process for the block; this imports the compiler, which is slow."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    frozen: Any = inductor
    known = {name: _INDUCTOR[name] for name in _known_to_inductor()}
    with (
        torch.compiler.set_stance("default"),
        dynamo.patch(_DYNAMO),
        frozen.patch(known),
        warnings.catch_warnings(),
    ):
        # single precision is meant: TF32 keeps 10 bits of 23
        warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
        yield


@cache
def _known_to_inductor() -> tuple[str, ...]:
    import torch._inductor.config as inductor

    config: Any = inductor
    known = config.get_config_copy()
    return tuple(name for name in _INDUCTOR if name in known)
