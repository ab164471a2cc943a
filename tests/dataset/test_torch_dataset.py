"""Loaders: the four forms, targets by name, workers, and what an item depends on."""

from __future__ import annotations

import importlib
import itertools
import sys

import numpy as np
import pytest
import torch
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan, make_store
from torch.nn import functional as F

from zoo.architectures import ACTIVATIONS, ARCHITECTURES, NORMS
from zoo.data import DataShape
from zoo.dataset import Zoo
from zoo.dataset.augment import Canonical, Mixup, Noise, Permute, Rescale
from zoo.dataset.equivariant import NORM_VALUES, NeuralGraph
from zoo.dataset.graphs import NODE_FEATURES, SYMMETRIES, encode_graphs
from zoo.dataset.layers import layer_tensors
from zoo.dataset.normalization import fit_normalization
from zoo.dataset.structure import Structure, only_structure
from zoo.dataset.tokens import rows_from_tokens, token_layout, tokenize
from zoo.dataset.torch_dataset import FORMS, ShardBatches
from zoo.errors import QueryError, SpecError, UnknownNameError
from zoo.spec.run import RunSpec


@pytest.fixture
def zoo():
    return Zoo(make_store(3, cuts=False))


def one_cohort(spec, *, models=4, seed=0):
    """Return the zoo of one cohort with small weights and sound variances."""
    rng = np.random.default_rng(seed)
    runs = [RunSpec(**{**spec, "seed": s}, epochs=2) for s in range(models)]
    cohort = make_cohort(runs, checkpoints=2)
    source = MemoryCohort(cohort, np.ones((models, 2), bool), rng)
    source._weights *= 0.3
    for s in cohort.layout.segments:
        if s.name.endswith("running_var"):
            source._weights[..., s.offset : s.stop] = (
                1 + source._weights[..., s.offset : s.stop] ** 2
            )
    return Zoo(MemoryStore(make_plan((cohort,)), [source]))


def test_flat_rows_come_with_their_targets(zoo):
    view = zoo.query().sort("test_accuracy")
    data = view.torch_dataset(targets="test_accuracy")
    assert len(data) == len(view)
    row, y = data[3]
    np.testing.assert_array_equal(row.numpy(), view[3:4].weights()[0])
    assert y.item() == pytest.approx(view[3]["test_accuracy"])
    seen = []
    for x, y in data.loader(3, shuffle=True):
        assert x.shape[0] == y.shape[0] <= 3
        seen += y.tolist()
    assert sorted(seen) == pytest.approx(sorted(view["test_accuracy"].tolist()))
    both = view.torch_dataset(targets=["test_accuracy", "width"])
    np.testing.assert_allclose(both[2][1], [view[2]["test_accuracy"], view[2]["width"]])
    assert view.torch_dataset()[0][1].shape == (0,)


def test_targets_and_forms_that_are_none_are_refused(zoo):
    with pytest.raises(QueryError, match="numbers and classes"):
        zoo.query().torch_dataset(targets=["norm", "width"])
    with pytest.raises(QueryError, match="unknown column 'nrom'"):
        zoo.query().torch_dataset(targets="nrom")
    with pytest.raises(UnknownNameError, match="unknown form 'flta'; did you mean 'flat'"):
        zoo.query().torch_dataset("flta")


def test_batches_of_several_structures_are_refused_and_never_made(zoo):
    view = zoo.query()
    data = view.torch_dataset()
    with pytest.raises(QueryError, match="rows of 2 structures"):
        data.batch([0, len(view) - 1])
    for call in (lambda: data[len(view)], lambda: data.batch([len(view)])):
        with pytest.raises(IndexError, match=f"row {len(view)} of a data set of {len(view)}"):
            call()
    with pytest.raises(TypeError, match="slice the view"):
        data[0:2]
    shapes = {x.shape[1] for x, _ in data.loader(4, shuffle=True)}
    assert shapes == {c.params for c in zoo.plan.cohorts}


TRANSFORMS = [Permute(), Rescale(), Noise(0.1)]


def test_an_item_depends_on_seed_epoch_and_position_alone(zoo):
    view = zoo.query(norm="none")
    data = view.torch_dataset(transforms=TRANSFORMS, targets="width", seed=4)
    singles = torch.stack([data[i][0] for i in range(len(data))])
    ordered = torch.cat([x for x, _ in data.loader(3)])
    assert torch.equal(singles, ordered)
    loader = data.loader(5, shuffle=True)
    first = {tuple(r[:3].tolist()) for x, _ in loader for r in x}
    second = {tuple(r[:3].tolist()) for x, _ in loader for r in x}
    assert first == {tuple(r[:3].tolist()) for r in singles}
    assert not first & second  # a new epoch, new drawings
    other = view.torch_dataset(transforms=TRANSFORMS, targets="width", seed=5)
    assert not torch.equal(other[0][0], singles[0])


# from Python 3.12 on, a fork beside any thread warns; the workers here only read files
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(zoo, workers):
    data = zoo.query().torch_dataset("tokens", transforms=TRANSFORMS, targets="width", seed=4)
    alone = [(x.token, y) for x, y in data.loader(4, shuffle=True)]
    shared = [(x.token, y) for x, y in data.loader(4, shuffle=True, workers=workers)]
    assert len(alone) == len(shared) > 2
    for (a, ya), (b, yb) in zip(alone, shared, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(ya, yb)


def test_a_sampler_resumes_at_its_epoch(zoo):
    sampler = ShardBatches(zoo.query(), 4, shuffle=True, seed=1)
    first, second = list(sampler), list(sampler)
    assert len(sampler) == len(first)
    assert first != second
    other = ShardBatches(zoo.query(), 4, shuffle=True, seed=1)
    other.set_epoch(1)
    assert list(other) == second
    assert {e for b in second for e, _ in b} == {1}


def test_normalisation_comes_after_transforms(zoo):
    view = zoo.query(norm="none")
    fitted = fit_normalization(view, "tensor")
    data = view.torch_dataset(transforms=[Canonical()], normalization=fitted)
    plain = view.torch_dataset(transforms=[Canonical()])
    layout = only_structure(view).layout
    torch.testing.assert_close(data[1][0], fitted.apply(plain[1][0].unsqueeze(0), layout)[0])


def test_mixup_in_the_loader_mixes_rows_and_targets(zoo):
    view = zoo.query(norm="none")
    data = view.torch_dataset(targets="test_accuracy", transforms=[Mixup(0.5, "none")])
    plain = view.torch_dataset(targets="test_accuracy")
    x, y = next(iter(data.loader(len(view))))
    x0, y0 = next(iter(plain.loader(len(view))))
    # the same share and partner gave both: solve for them in the rows, then look at the targets
    for row, target in zip(x, y, strict=True):
        fit = torch.linalg.lstsq(x0.T.double(), row.double().unsqueeze(1)).solution[:, 0]
        assert (fit * y0.double()).sum().item() == pytest.approx(target.item(), abs=1e-3)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("size", [0, 7, 300])
def test_tokens_hold_every_value_once(norm, size):
    zoo = one_cohort({"width": 8, "norm": norm})
    structure = only_structure(zoo.query())
    rows = torch.from_numpy(zoo.query().stacked_weights())
    tokens = tokenize(rows, structure.layout, size)
    form = token_layout(structure.layout, size)
    assert tokens.mask.sum() == structure.params
    there = form.source[form.source >= 0]
    assert sorted(there.tolist()) == list(range(structure.params))
    assert (tokens.token[:, ~tokens.mask] == 0).all()
    assert torch.equal(rows_from_tokens(tokens, structure.layout), rows)
    assert tokens.position[:, 0].tolist() == list(range(len(tokens.position)))


def test_a_token_is_a_units_kernel_and_bias():
    zoo = one_cohort({"width": 8, "norm": "batch"})
    structure = only_structure(zoo.query())
    state = zoo.query().state_dict(0)
    tokens = tokenize(torch.from_numpy(zoo.query()[:1].weights()), structure.layout)
    form = token_layout(structure.layout)
    assert form.layers == (
        "hidden.0.linear", "hidden.0.norm", "hidden.1.linear", "hidden.1.norm", "output",
    )  # fmt: skip
    for layer, name in ((0, "hidden.0.linear"), (2, "hidden.1.linear"), (4, "output")):
        at = np.flatnonzero(form.position[:, 1] == layer)
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        assert form.position[at, 2].tolist() == list(range(len(bias)))
        want = torch.cat([weight, bias[:, None]], 1)
        assert torch.equal(tokens.token[0, at, : want.shape[1]], want)
    at = np.flatnonzero(form.position[:, 1] == 1)
    norm = [state[f"hidden.0.norm.{k}"] for k in ("weight", "bias", "running_mean", "running_var")]
    assert torch.equal(tokens.token[0, at, :4], torch.stack(norm, 1))
    with pytest.raises(QueryError, match="token size -1"):
        token_layout(structure.layout, -1)


def mlp_from_graph(graph, layers):
    """Evaluate an MLP from nothing but its graph: the forward pass over edges."""
    x = torch.randn(5, layers[0], generator=torch.Generator().manual_seed(0))
    state = torch.zeros(5, sum(layers))
    state[:, : layers[0]] = x
    start = layers[0]
    for number, size in enumerate(layers[1:]):
        at = graph.edge_layer == number
        source, target = graph.edge_index[:, at]
        sums = torch.zeros(5, sum(layers)).index_add_(
            1, target, state[:, source] * graph.edge_attr[at, 0]
        )
        value = sums[:, start : start + size] + graph.x[start : start + size, 0]
        last = number == len(layers) - 2
        state[:, start : start + size] = value if last else F.relu(value)
        start += size
    return x, state[:, -layers[-1] :]


def test_a_graph_computes_what_the_model_does():
    zoo = one_cohort({"width": 8})
    view = zoo.query()
    graph, _ = view.torch_dataset("graph")[0]
    assert graph.layer_sizes == (64, 8, 8, 10)
    x, ours = mlp_from_graph(graph, graph.layer_sizes)
    with torch.no_grad():
        theirs = view.model(0)(x.view(5, 1, 8, 8))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_graph_features_and_batches():
    zoo = one_cohort({"width": 8, "norm": "batch", "architecture": "cnn", "activation": "tanh"})
    view = zoo.query()
    structure = only_structure(view)
    rows = torch.from_numpy(view.stacked_weights())
    graph = encode_graphs(rows, structure)
    state = view.state_dict(2)
    nodes = sum(graph.layer_sizes)
    assert graph.layer_sizes == (1, 8, 8, 8, 10)
    assert graph.x.shape == (len(view) * nodes, len(NODE_FEATURES))
    assert graph.edge_attr.shape[1] == 9
    hidden = slice(2 * nodes + 1, 2 * nodes + 9)
    assert torch.equal(graph.x[hidden, 0], state["hidden.0.conv.bias"])
    assert torch.equal(
        graph.x[hidden, NODE_FEATURES.index("running_var")], state["hidden.0.norm.running_var"]
    )
    assert [SYMMETRIES[i] for i in graph.node_symmetry[:nodes].unique()] == ["none", "sign"]
    assert (graph.node_symmetry[:nodes] > 0).sum() == 24
    activations = graph.node_activation[:nodes]
    assert (activations > 0).sum() == 24
    assert ACTIVATIONS.names()[int(activations.max()) - 1] == "tanh"
    x, edges = graph.dense()
    weight = state["hidden.1.conv.weight"]
    torch.testing.assert_close(
        edges[2, 1:9, 9:17], weight.permute(1, 0, 2, 3).flatten(2), rtol=0, atol=0
    )
    torch.testing.assert_close(edges[2, 25 - 8 : 25, 25:, 0], state["output.weight"].T)
    assert not edges[2, 25 - 8 : 25, 25:, 1:].any()
    assert torch.equal(x[2, 1:9, 0], state["hidden.0.conv.bias"])
    # parts of a batch do not touch
    source, target = graph.edge_index
    assert torch.equal(graph.batch[source], graph.batch[target])
    assert torch.equal(graph.batch.bincount(), torch.full((len(view),), nodes))


def test_graphs_are_those_of_pytorch_geometric():
    pytest.importorskip("torch_geometric")
    zoo = one_cohort({"width": 8, "norm": "layer"})
    rows = torch.from_numpy(zoo.query().stacked_weights())
    graph = encode_graphs(rows, only_structure(zoo.query()))
    batch = graph.to_pyg()
    for name in ("x", "edge_index", "edge_attr", "batch", "node_layer", "node_activation"):
        assert torch.equal(getattr(batch, name), getattr(graph, name))
    single = encode_graphs(rows[:1], only_structure(zoo.query())).to_pyg()
    assert single.validate()
    assert not single.has_isolated_nodes()


def test_layer_lists_are_the_tensors_of_the_state_dict():
    zoo = one_cohort({"width": 8, "norm": "batch"})
    view = zoo.query()
    x, _ = next(iter(view.torch_dataset("layers").loader(len(view))))
    for i in (0, len(view) - 1):
        state = view.state_dict(i)
        for name, w, b in zip(x.names, x.weights, x.biases, strict=True):
            assert torch.equal(w[i, 0], state[f"{name}.weight"])
            assert torch.equal(b[i, 0], state[f"{name}.bias"])
        for name, n in zip(x.norm_names, x.norms, strict=True):
            assert torch.equal(n[i, 3], state[f"{name}.running_var"])


def test_layer_lists_go_into_neural_functionals():
    pytest.importorskip("nfn")
    layers = importlib.import_module("nfn.layers")
    common = importlib.import_module("nfn.common")
    view = one_cohort({"width": 8}).query()
    features = layer_tensors(torch.from_numpy(view.stacked_weights()), only_structure(view).layout)
    wsfeat = features.to_nfn()
    spec = common.network_spec_from_wsfeat(wsfeat)
    out = layers.NPLinear(spec, 1, 4)(wsfeat)
    assert out.weights[0].shape == (len(view), 4, 8, 64)


@pytest.mark.parametrize(
    ("library", "call"),
    [
        ("torch_geometric.data", lambda rows, s: encode_graphs(rows, s).to_pyg()),
        ("nfn.common", lambda rows, s: layer_tensors(rows, s.layout).to_nfn()),
    ],
)
def test_missing_libraries_are_named(library, call, monkeypatch):
    monkeypatch.setitem(sys.modules, library.split(".")[0], None)
    monkeypatch.setitem(sys.modules, library, None)
    view = one_cohort({"width": 8}).query()
    with pytest.raises(ImportError, match="pip install"):
        call(torch.from_numpy(view.stacked_weights()), only_structure(view))


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_the_neural_graph_does_not_see_a_permutation(architecture, norm):
    zoo = one_cohort({"width": 8, "norm": norm, "architecture": architecture})
    view = zoo.query()
    net = NeuralGraph(3, taps=9)
    net.initialize(0)
    plain, _ = next(iter(view.torch_dataset("layers").loader(len(view))))
    moved, _ = next(iter(view.torch_dataset("layers", transforms=[Permute()]).loader(len(view))))
    noisy, _ = next(iter(view.torch_dataset("layers", transforms=[Noise(0.3)]).loader(len(view))))
    with torch.no_grad():
        a, b, c = net(plain), net(moved), net(noisy)
    assert not torch.equal(plain.weights[1], moved.weights[1])
    assert a.shape == (len(view), 3)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert (a - c).abs().max() > 1e-3
    again = NeuralGraph(3, taps=9)
    again.initialize(0)
    with torch.no_grad():
        assert torch.equal(again(plain), a)


def every_structure():
    for architecture, norm, activation in itertools.product(ARCHITECTURES, NORMS, ACTIVATIONS):
        spec = RunSpec(architecture=architecture, norm=norm, activation=activation, width=8)
        try:
            yield Structure.of(spec, DataShape((1, 8, 8), 10))
        except SpecError:  # a norm that cannot stand there
            continue


def test_every_form_has_every_value_of_every_architecture_once():
    structures = set(every_structure())
    assert len(structures) > 50
    for structure in structures:
        row = torch.arange(1.0, structure.params + 1).unsqueeze(0)
        layers = layer_tensors(row, structure.layout)
        parts = [*layers.weights, *layers.biases, *layers.norms]
        graph = encode_graphs(row, structure)
        tokens = tokenize(row, structure.layout)
        for found in (
            torch.cat([p.flatten() for p in parts]),
            torch.cat([graph.x.flatten(), graph.edge_attr.flatten()]),
            tokens.token.flatten(),
        ):
            assert torch.equal(found[found > 0].sort().values, row[0])
        assert layers.norms == () or layers.norms[0].shape[1] <= NORM_VALUES
        symmetries = {u.kind for u in structure.units}
        shown = {SYMMETRIES[i] for i in graph.node_symmetry.unique().tolist()} - {"none"}
        assert shown == ({" and ".join(sorted(symmetries))} if symmetries else set())


def test_every_form_is_in_the_registry():
    assert FORMS.names() == ("flat", "tokens", "graph", "pyg", "layers")
