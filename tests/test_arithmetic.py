"""What a program has set in torch and numpy changes no bit of ours, and is set again afterwards."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import zoo
from zoo.architectures import build, initial_row, module_for
from zoo.architectures.symmetry import verify
from zoo.arithmetic import SETTINGS, THREAD_SETTINGS, pinned, pinned_compiler
from zoo.dataset.align import AlignmentProbe, MidpointSearch, align_rows
from zoo.dataset.baselines import NeuralTraining, Target, fit_neural
from zoo.dataset.canonical import canonical_rows
from zoo.dataset.normalization import fit_normalization
from zoo.dataset.structure import structure_of
from zoo.diets.scoring import score_models
from zoo.errors import TrainError
from zoo.landscape import CELL_METRICS, MODEL_METRICS
from zoo.landscape.blocks import Models, Wanted, measure_models, measure_pairs
from zoo.launch.reproduce import reproduce
from zoo.provenance import fingerprint, fingerprint_changes
from zoo.report.surface import loss_around
from zoo.train.task_data import task_data
from zoo.train.trainer import Engine, TaskTrainer

#: Another value of a setting that is no truth value.
OTHER = {
    1: 2,
    torch.float32: torch.float64,
    (False, False): (True, True),
    (False, True): (True, False),
    (True, True): (False, False),
}
_PLACES = [
    ("generic", "all"),
    *((b, o) for b in ("cuda", "mkldnn") for o in ("all", "matmul", "conv", "rnn")),
]


class _Doubling(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return out * 2 if func is torch.Tensor.double else out


class _Negating(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        return -out if func is torch.ops.aten.mm.default else out


def _precisions():
    return [torch._C._get_fp32_precision_getter(*place) for place in _PLACES]


@contextmanager
def _written(setting):
    before = setting.read()
    setting.write(not before if isinstance(before, bool) else OTHER[before])
    try:
        yield
    finally:
        setting.write(before)


@contextmanager
def _precision_kept():
    """Bring both of torch's ways to set a precision back to what a fresh process has."""
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = True
        for place in _PLACES:
            value = "tf32" if place in {("cuda", "conv"), ("cuda", "rnn")} else "none"
            torch._C._set_fp32_precision_setter(*place, value)


@contextmanager
def _precision(value, *places):
    with _precision_kept():
        for place in places:
            torch._C._set_fp32_precision_setter(*place, value)
        yield


@contextmanager
def _products(value):
    with _precision_kept():
        torch.set_float32_matmul_precision(value)
        yield


@contextmanager
def _tf32_convolutions(value):
    with _precision_kept():
        torch.backends.cudnn.allow_tf32 = value
        yield


@contextmanager
def _device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


def _writable(setting):
    return "opt_einsum" not in setting.name or torch.backends.opt_einsum.is_available()


#: What a program may have set -> a context that sets it.
DISTURBED = {
    **{s.name: (lambda s=s: _written(s)) for s in (*THREAD_SETTINGS, *SETTINGS) if _writable(s)},
    "medium products": lambda: _products("medium"),
    "high products": lambda: _products("high"),
    "bfloat16 everywhere": lambda: _precision("bf16", ("generic", "all")),
    "tf32 everywhere": lambda: _precision("tf32", *_PLACES),
    "bfloat16 in oneDNN": lambda: _precision(
        "bf16", ("mkldnn", "all"), ("mkldnn", "conv"), ("mkldnn", "matmul")
    ),
    "exact convolutions": lambda: _precision("ieee", ("cuda", "conv")),
    "tf32 in cuDNN": lambda: _tf32_convolutions(True),
    "no tf32 in cuDNN": lambda: _tf32_convolutions(False),
    "default device": lambda: _device("meta"),
    "device block": lambda: torch.device("meta"),
    "function mode": _Doubling,
    "dispatch mode": _Negating,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "numpy raises": lambda: np.errstate(all="raise"),
    "BLAS threads": lambda: threadpool_limits(2, user_api="blas"),
}


def _state():
    """Return everything that is pinned, as it is now."""
    found = {s.name: s.read() for s in (*THREAD_SETTINGS, *SETTINGS)}
    for name, read in {
        "products": torch.get_float32_matmul_precision,
        "cuBLAS": lambda: torch.backends.cuda.matmul.allow_tf32,
        "cuDNN": lambda: torch.backends.cudnn.allow_tf32,
    }.items():
        try:
            found[name] = read()
        except RuntimeError:  # torch refuses to read one of its two ways where the other was used
            found[name] = "mixed"
    found["precisions"] = _precisions()
    found["device"] = torch.get_default_device()
    found["modes"] = tuple(map(type, torch.overrides._get_current_function_mode_stack()))
    found["dispatch"] = torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    found["gradients"] = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    found["numpy"] = np.geterr()
    found["BLAS"] = [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]
    return found


@pytest.fixture(autouse=True)
def single_blas_thread():
    """Tests start with one BLAS thread on any machine, so that two are a change."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.mark.parametrize("name", DISTURBED)
def test_what_is_set_is_set_aside_and_comes_back(name):
    with pinned():
        usual = _state()
    assert usual["precisions"] == ["ieee"] * 9
    assert usual["products"] == "highest"
    assert (usual["cuBLAS"], usual["cuDNN"]) == (False, False)
    clean = _state()
    with DISTURBED[name]():
        before = _state()
        if name != "tf32 in cuDNN":  # torch's own default
            assert before != clean
        with pinned():
            assert _state() == usual
            with pinned():
                assert _state() == usual
            assert _state() == usual
        assert _state() == before
        with pytest.raises(KeyError), pinned():
            raise KeyError
        assert _state() == before
    assert _state() == clean


def test_gradients_are_on_off_or_as_they_are():
    for outer in (True, False):
        with torch.set_grad_enabled(outer):
            for gradients, inside in {"on": True, "off": False, "as they are": outer}.items():
                with pinned(gradients=gradients):
                    assert torch.is_grad_enabled() == inside
                assert torch.is_grad_enabled() == outer


def test_two_threads_may_each_be_in_a_block():
    torch.set_default_dtype(torch.float64)
    try:
        entered, leave, seen = threading.Event(), threading.Event(), []

        def other():
            with pinned():
                entered.set()
                leave.wait(60)
                seen.append(torch.get_default_dtype())

        with pinned():
            thread = threading.Thread(target=other)
            thread.start()
            assert entered.wait(60)
        # the first has left, the second is still in its block
        leave.set()
        thread.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# -- bits ---------------------------------------------------------------------------------------

SWEEP = {
    "name": "pinned",
    "base": {"epochs": 1, "train_size": 128, "width": 8, "batch_size": 32, "momentum": 0.9},
    "record": {"probe_size": 8},
    "block": [
        {"base": {"norm": "batch", "init": "orthogonal"}, "grid": {"seed": [0, 1]}},
        {"base": {"architecture": "cnn", "width": 4}, "grid": {"seed": [0]}},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("pinned") / "z.zarr"
    zoo.run(zoo.Sweep.from_dict(SWEEP), path, workers=0, backend="eager")
    return path


def _everything(path):
    """Return bytes of all that is computed in the caller's process, by name."""
    found = {}
    z = zoo.open(path)
    for cohort in z.plan.cohorts:
        for task in cohort.tasks():
            for checkpoint in TaskTrainer(z.plan, cohort, task, engine=Engine("eager")).run():
                found[f"trained {cohort.id} {checkpoint.index}"] = checkpoint.weights
                for name, values in checkpoint.metrics.items():
                    found[f"{name} {cohort.id} {checkpoint.index}"] = values
    view = z.query(architecture="mlp", epoch=-1)
    ((cohort_id, _),) = view.by_cohort().items()
    cohort = z.plan.cohort(cohort_id)
    assert reproduce(path, cohort.run_ids[0]).matches
    network = build(view.spec(0), cohort.data_shape)
    data = task_data(z.plan, cohort, network, {}, torch.device("cpu"))
    raw, structure = view.weights(), structure_of(cohort)
    rows = torch.from_numpy(raw)
    x, y = z.data("digits").train_x[:64], z.data("digits").train_y[:64]
    examples = torch.from_numpy(np.ascontiguousarray(x)), torch.from_numpy(np.ascontiguousarray(y))
    found |= _of_rows(view, network, rows, structure, *examples)
    found |= _measured(network, data, view, raw)
    names = ["loss", "grand_last", "correct"]
    scored = score_models(
        network, data.objective, rows, network.inputs(examples[0]), examples[1].expand(2, -1), names
    )
    found |= {f"score {name}": values for name, values in scored.items()}
    found["surface"] = loss_around(z, view["run_id"][0], points=3, examples=64).loss
    made = module_for(view.spec(0), cohort.data_shape)
    assert {p.device.type for p in made.parameters()} == {"cpu"}
    for name, value in view.model(0).state_dict().items():
        found[f"model {name}"] = value
    assert all(p.requires_grad and not p.is_inference() for p in view.model(0).parameters())
    found["verified"] = np.array(list(verify(network).values()))
    wide = view.spec(0).replace(width=300)
    layout = build(wide, cohort.data_shape).layout
    found["orthogonal"] = initial_row(layout, init="orthogonal", scale=1.0, seed=3)
    return {name: (str(v.dtype), np.asarray(v).tobytes()) for name, v in found.items()}


def _of_rows(view, network, rows, structure, x, y):
    found = {"canonical": canonical_rows(rows, structure)}
    for method in ("weights", "activations", "straight_through"):
        found[f"aligned by {method}"] = align_rows(
            rows[1:],
            rows[0],
            structure,
            method=method,
            probe=AlignmentProbe(network, x, y),
            search=MidpointSearch(steps=3),
        )
    normalization = fit_normalization(view)
    for form in ("flat", "tokens", "graph", "layers"):
        data = view.torch_dataset(form, targets="lr", normalization=normalization)
        made, target = data[0]
        parts = {
            "flat": ["data"],
            "tokens": ["token"],
            "graph": ["x", "edge_attr"],
            "layers": ["weights"],
        }
        for part in parts[form]:
            value = getattr(made, part)
            found[f"{form} {part}"] = value[0] if isinstance(value, tuple) else value
        found[f"{form} target"] = target
    target = Target("lr", np.array([0.0, 1.0]))
    both = np.arange(2)
    found["neural"] = fit_neural(view, [target], both, both, training=NeuralTraining(epochs=2))[0]
    return found


def _measured(network, data, view, raw):
    runs = [view.spec(i) for i in range(2)]
    models = Models(network, data, runs, raw)
    sizes = {"train": 64, "test": 64, "mixup": 64}
    found = {}
    for metric in ("curvature", "collapse", "noise"):
        options = MODEL_METRICS[metric].options
        lr = np.full(2, 0.1)
        values = measure_models(Wanted(metric, options, sizes), models, lr)
        found |= {f"{metric} {name}": v for name, v in values.items()}
    for metric in ("similarity", "connectivity"):
        options = {**CELL_METRICS[metric].options}
        if metric == "connectivity":
            options |= {"epochs": 1, "min_steps": 6}
        values = measure_pairs(Wanted(metric, options, sizes), models, [(0, 1)])
        found |= {f"{metric} {name}": v for name, v in values.items()}
    return found


@pytest.fixture(scope="module")
def undisturbed(store):
    with threadpool_limits(1, user_api="blas"):
        return _everything(store)


#: Those that mean something on a CPU.
ON_CPUS = [name for name in DISTURBED if not re.search("cud|cublas", name, re.IGNORECASE)]


@pytest.mark.parametrize("name", ON_CPUS)
def test_no_setting_changes_a_bit(name, store, undisturbed):
    with DISTURBED[name]():
        found = _everything(store)
    assert {n for n in undisturbed if found[n] != undisturbed[n]} == set()


@pytest.mark.parametrize("name", ["default dtype", "default device", "autocast", "inference_mode"])
def test_runs_are_the_same_whatever_is_set(name, store, tmp_path):
    with DISTURBED[name]():
        zoo.run(zoo.Sweep.from_dict(SWEEP), tmp_path / "z.zarr", workers=0, backend="eager")
    first, second = zoo.open(store), zoo.open(tmp_path / "z.zarr")
    assert second.status()["done"] == len(second.runs())
    for cohort, weights in first.query(epoch=-1).weights().items():
        assert np.array_equal(weights, second.query(epoch=-1).weights()[cohort])


# -- the environment and the compiler -------------------------------------------------------------


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_a_variable_that_rounds_products_is_refused(name, monkeypatch):
    monkeypatch.setenv(name, "BF16")
    with (
        pytest.raises(TrainError, match=f"{name} = 'BF16'.*unset it, or set it to STRICT"),
        pinned(),
    ):
        pass
    monkeypatch.setenv(name, "STRICT")
    with pinned():
        pass


def test_variables_that_choose_algorithms_are_recorded(monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    then = fingerprint()
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    (change,) = fingerprint_changes(then, fingerprint())
    assert "MKL_CBWR" in change
    del then["variables"]  # an older record says nothing of them
    assert fingerprint_changes(then, fingerprint()) == ()


def test_the_compiler_is_as_in_a_fresh_process():
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor
    from torch._dynamo.eval_frame import _stance

    set_before = {"cpp.enable_unsafe_math_opt_flag": True, "max_autotune": True, "freezing": True}
    with (
        dynamo.patch(disable=True, suppress_errors=True),
        inductor.patch(set_before),
        torch.compiler.set_stance("force_eager"),
    ):
        with pinned_compiler():
            assert (dynamo.disable, dynamo.suppress_errors) == (False, False)
            assert not inductor.cpp.enable_unsafe_math_opt_flag
            assert not inductor.max_autotune
            assert not inductor.freezing
            from torch._dynamo.eval_frame import _stance as inside

            assert inside.stance == "default"
        assert (dynamo.disable, inductor.freezing) == (True, True)
    assert _stance.stance == "default"
