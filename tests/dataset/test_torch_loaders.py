"""torch's own loaders, samplers and splits on a data set of weights, and ours beside them."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch
from fabricated import MemoryCohort, MemoryStore, make_cohort, make_plan, make_store
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    WeightedRandomSampler,
    default_collate,
    random_split,
)

import zoo as zoo_module
from zoo.dataset import Zoo
from zoo.dataset.augment import Mixup, Noise, Permute
from zoo.dataset.graphs import Graph
from zoo.dataset.layers import LayerTensors
from zoo.dataset.tokens import Tokens
from zoo.errors import QueryError
from zoo.launch.local import run
from zoo.spec.run import RunSpec

# from Python 3.12 on, a fork beside any thread warns; the workers here only read files
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

FORMS = ("flat", "tokens", "graph", "layers")


@pytest.fixture
def zoo():
    """A zoo of two cohorts of one structure: they differ by batch size."""
    rng = np.random.default_rng(0)
    cohorts = []
    for batch in (4, 8):
        specs = [
            RunSpec(width=8, norm="batch", batch_size=batch, epochs=2, seed=s) for s in range(4)
        ]
        cohort = make_cohort(specs, name=f"b{batch}", checkpoints=3)
        cohorts.append(MemoryCohort(cohort, np.ones((4, 3), bool), rng))
    return Zoo(MemoryStore(make_plan(tuple(c.cohort for c in cohorts)), cohorts))


def tensors(x):
    """Every tensor of an encoded batch, by name."""
    if isinstance(x, torch.Tensor):
        return {"rows": x}
    found = {}
    for name in x.__dataclass_fields__:
        value = getattr(x, name)
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif isinstance(value, tuple) and value and isinstance(value[0], torch.Tensor):
            found |= {f"{name}.{i}": v for i, v in enumerate(value)}
    return found


def assert_equal(a, b):
    (xa, ya), (xb, yb) = a, b
    assert type(xa) is type(xb)
    assert torch.equal(ya, yb)
    left, right = tensors(xa), tensors(xb)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name
    if isinstance(xa, Graph):
        assert (xa.graphs, xa.layer_sizes) == (xb.graphs, xb.layer_sizes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("targets", ["test_accuracy", ["test_accuracy", "width"], ()])
def test_a_plain_loader_gives_the_batches_that_ours_gives(zoo, form, targets):
    transforms = [Permute(), Noise(0.1), Mixup(0.5, "none")]
    data = zoo.query().torch_dataset(form, targets=targets, transforms=transforms, seed=3)
    ours = list(data.loader(5))
    theirs = list(DataLoader(data, batch_size=5))
    assert len(ours) == len(theirs) == 5
    for (x, y), mine in zip(theirs, ours, strict=True):
        assert_equal((x, y), mine)
    assert len(theirs[0][1]) == 5


def test_an_item_has_no_batch_axis(zoo):
    view = zoo.query()
    params = zoo.plan.cohorts[0].params
    x, y = view.torch_dataset(targets="test_accuracy")[-1]
    assert (x.shape, y.shape) == ((params,), ())
    assert torch.equal(x, torch.from_numpy(view[-1:].stacked_weights())[0])
    tokens, _ = view.torch_dataset("tokens")[0]
    assert tokens.token.shape == tokens.mask.shape
    layers, _ = view.torch_dataset("layers")[0]
    assert [w.shape for w in layers.weights] == [(1, 8, 64), (1, 8, 8), (1, 10, 8)]
    assert layers.norms[0].shape == (4, 8)


@pytest.mark.parametrize("form", FORMS)
def test_subsets_splits_and_concatenations_load(zoo, form):
    data = zoo.query().torch_dataset(form, targets="test_accuracy")
    generator = torch.Generator().manual_seed(0)
    wholes = {
        "subset": Subset(data, [3, 1, 2]),
        "tensor": Subset(data, torch.tensor([3, 1, 2])),
        "split": random_split(data, [0.5, 0.5], generator=generator)[0],
        "concat": ConcatDataset([data, data]),
    }
    for name, whole in wholes.items():
        loader = DataLoader(whole, batch_size=2, shuffle=True, generator=generator)
        counted = sum(len(y) for _, y in loader)
        assert counted == len(whole), name
    got = [y for _, y in DataLoader(wholes["tensor"], batch_size=3)]
    assert torch.equal(got[0], torch.stack([data[i][1] for i in (3, 1, 2)]))


def test_any_sampler_orders_the_items(zoo):
    data = zoo.query().torch_dataset(targets="seed")
    weights = (zoo.query()["seed"] == 2).astype(float)
    drawn = WeightedRandomSampler(weights, 16, generator=torch.Generator().manual_seed(0))
    assert {y for _, ys in DataLoader(data, batch_size=4, sampler=drawn) for y in ys.tolist()} == {
        2.0
    }
    shares = []
    for rank in range(2):
        sampler = DistributedSampler(data, num_replicas=2, rank=rank, seed=1)
        sampler.set_epoch(4)
        shares.append([x for xs, _ in DataLoader(data, batch_size=5, sampler=sampler) for x in xs])
    assert [len(s) for s in shares] == [12, 12]
    both = {tuple(x[:4].tolist()) for share in shares for x in share}
    assert both == {tuple(data[i][0][:4].tolist()) for i in range(24)}
    for batches in (
        {"batch_sampler": BatchSampler(SequentialSampler(data), 7, drop_last=True)},
        {"batch_size": 7, "drop_last": True, "shuffle": True},
        {"batch_size": 7, "drop_last": True, "sampler": RandomSampler(data)},
    ):
        loader = DataLoader(data, **batches)
        assert len(loader) == 3
        assert [len(y) for _, y in loader] == [7, 7, 7]
    assert [y.shape for _, y in DataLoader(data, batch_size=None)] == [()] * 24


def test_transforms_of_a_plain_loader_follow_set_epoch(zoo):
    data = zoo.query().torch_dataset(transforms=[Noise(0.1)], seed=2)
    first, again = (torch.cat([x for x, _ in DataLoader(data, 6)]) for _ in range(2))
    assert torch.equal(first, again)
    data.set_epoch(1)
    other = torch.cat([x for x, _ in DataLoader(data, 6)])
    assert not (other == first).all(1).any()
    ours = data.loader(6)
    list(ours)
    assert torch.equal(torch.cat([x for x, _ in ours]), other)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_pass_of_our_loader_is_shuffled_anew_and_repeats_from_the_seed(zoo, workers):
    data = zoo.query().torch_dataset(targets="seed", transforms=[Noise(0.1)], seed=5)
    options = {"shuffle": True, "num_workers": workers, "persistent_workers": workers > 0}

    def passes(loader, n):
        return [[(x, y) for x, y in loader] for _ in range(n)]

    loader = data.loader(4, **options)
    first, second, third = passes(loader, 3)
    assert [y.tolist() for _, y in first] != [y.tolist() for _, y in second]
    assert not {tuple(r.tolist()) for x, _ in first for r in x} & {
        tuple(r.tolist()) for x, _ in second for r in x
    }
    again = data.loader(4, **options)
    for a, b in zip([first, second, third], passes(again, 3), strict=True):
        for left, right in zip(a, b, strict=True):
            assert_equal(left, right)
    resumed = data.loader(4, **options)
    resumed.sampler.set_epoch(2)
    for left, right in zip(third, passes(resumed, 1)[0], strict=True):
        assert_equal(left, right)


def test_passes_side_by_side_are_two_epochs(zoo):
    loader = zoo.query().torch_dataset(targets="seed", seed=5).loader(4, shuffle=True)
    one, other = iter(loader), iter(loader)
    earlier, later = [], []
    for (_, a), (_, b) in zip(one, other, strict=True):
        earlier.append(a.tolist())
        later.append(b.tolist())
    loader.sampler.set_epoch(0)
    assert [y.tolist() for _, y in loader] == earlier != later
    assert [y.tolist() for _, y in loader] == later
    assert sorted(itertools.chain(*earlier)) == sorted(itertools.chain(*later))


def test_our_loader_takes_the_names_that_torch_has(zoo):
    data = zoo.query().torch_dataset(targets="seed")
    named = data.loader(batch_size=7, shuffle=False, num_workers=0, drop_last=True)
    assert len(named) == 3
    assert [len(y) for _, y in named] == [7, 7, 7]
    assert len(data.loader(batch=7, workers=0)) == 4
    with pytest.raises(QueryError, match=r"torch\.utils\.data\.DataLoader"):
        data.loader(4, sampler=RandomSampler(data))
    for wrong in ({"batch_size": 0}, {"batch_size": "4"}, {"num_workers": -1}, {"batch": 2.5}):
        with pytest.raises(QueryError, match="a whole number, at least"):
            data.loader(**wrong)
    with pytest.raises(TypeError, match="bath_size"):
        data.loader(bath_size=3)


def test_a_sampler_put_in_place_of_ours_shares_out_whole_batches():
    """What trainers do for several processes: the same loader over a DistributedSampler."""
    zoo = Zoo(make_store(3, cuts=False))
    loader = zoo.query().torch_dataset(targets="seed").loader(4)
    whole = [y.tolist() for _, y in loader]
    shares = []
    for rank in range(2):
        sampler = DistributedSampler(loader.dataset, num_replicas=2, rank=rank, shuffle=False)
        again = DataLoader(
            loader.dataset, batch_size=None, sampler=sampler, collate_fn=loader.collate_fn
        )
        shares.append([y.tolist() for _, y in again])
    assert len(shares[0]) == len(shares[1]) == -(-len(whole) // 2)
    assert {tuple(b) for share in shares for b in share} == {tuple(b) for b in whole}


@pytest.mark.parametrize("form", FORMS)
def test_pairs_load_as_pairs_of_items(zoo, form):
    pairs = zoo.query("epoch == -1").pairs("run_id", "epoch")
    assert len(pairs) == 0
    assert len(pairs.torch_dataset(form)) == 0
    pairs = zoo.query("epoch == -1").pairs("seed", "batch_size")
    assert len(pairs) == 4
    data = pairs.torch_dataset(form, targets="batch_size", transforms=[Permute()])
    ours = list(data.loader(batch_size=3))
    theirs = list(DataLoader(data, batch_size=3))
    for mine, plain in zip(ours, theirs, strict=True):
        for a, b in zip(mine, plain, strict=True):
            assert_equal(a, tuple(b))
    left, right = pairs[0]
    assert (left["batch_size"], right["batch_size"]) == (data[0][0][1], data[0][1][1]) == (4, 8)
    assert [len(part[0][1]) for part in DataLoader(Subset(data, [0, 2]), 2)] == [2]


def test_the_two_sides_of_a_pair_are_drawn_separately(zoo):
    view = zoo.query("epoch == -1")
    same = view.pairs("seed", "batch_size")
    twins = type(same)(same.left, same.left)
    (left, _), (right, _) = twins.torch_dataset(transforms=[Noise(0.1)])[0]
    assert not torch.equal(left, right)


def test_tokens_of_several_structures_are_padded_and_other_forms_say_what_to_do():
    zoo = Zoo(make_store(3, cuts=False))
    view = zoo.query("epoch == -1")
    assert len({c.params for c in zoo.plan.cohorts}) == 2
    data = view.torch_dataset("tokens", targets="width", token_size=9)
    x, y = next(iter(DataLoader(data, batch_size=len(view))))
    assert x.token.shape == x.mask.shape
    assert x.position.shape == (*x.token.shape[:2], 3)
    params = {8: zoo.plan.cohorts[0].params, 16: zoo.plan.cohorts[1].params}
    assert x.mask.flatten(1).sum(1).tolist() == [params[int(w)] for w in y]
    assert not x.token[~x.mask].any()
    one, other = (view.torch_dataset("tokens", token_size=size)[0][0] for size in (7, 8))
    with pytest.raises(QueryError, match="sizes 7, 8 in one batch; set token_size"):
        default_collate([one, other])
    for form, says in (("layers", "shapes"), ("graph", "2 structures")):
        loader = DataLoader(view.torch_dataset(form), batch_size=len(view))
        with pytest.raises(QueryError, match=f"{says}.*let loader"):
            next(iter(loader))


def test_pyg_loads_graphs_with_its_own_loader(zoo):
    pytest.importorskip("torch_geometric")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.loader import DataLoader as GraphLoader
    view = zoo.query()
    data = view.torch_dataset("pyg", targets="test_accuracy")
    graphs = view.torch_dataset("graph", targets="test_accuracy")
    ours, theirs = list(data.loader(5)), list(GraphLoader(data, batch_size=5))
    for mine, batch, (graph, y) in zip(ours, theirs, graphs.loader(5), strict=True):
        assert type(mine) is type(batch)
        for name in ("x", "edge_index", "edge_attr", "batch", "node_layer", "edge_layer"):
            assert torch.equal(getattr(batch, name), getattr(graph, name))
            assert torch.equal(getattr(mine, name), getattr(graph, name))
        assert torch.equal(batch.y, y)
        assert torch.equal(mine.y, y)
    assert ours[-1].num_graphs == 4
    assert data[0].validate()
    many = view.torch_dataset("pyg", targets=["seed", "width"])
    assert next(iter(GraphLoader(many, batch_size=3))).y.shape == (3, 2)
    assert sum(b.num_graphs for b in GraphLoader(Subset(data, [1, 2]), batch_size=2)) == 2
    assert next(iter(view[:1].torch_dataset("pyg").loader(8))).num_graphs == 1


def test_encoded_batches_move_and_pin_every_tensor(zoo, monkeypatch):
    view = zoo.query()
    for form, kind in (("tokens", Tokens), ("graph", Graph), ("layers", LayerTensors)):
        x, _ = next(iter(view.torch_dataset(form).loader(4)))
        moved = x.to("meta", non_blocking=True)
        assert isinstance(moved, kind)
        assert {t.device.type for t in tensors(moved).values()} == {"meta"}
        assert tensors(moved).keys() == tensors(x).keys()
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
            pinned = x.pin_memory()
        for name, value in tensors(x).items():
            assert torch.equal(tensors(pinned)[name], value + 1)


@pytest.mark.filterwarnings("ignore:.*pin_memory.*no accelerator:UserWarning")
def test_workers_that_fork_or_start_anew_read_the_same(tmp_path):
    sweep = zoo_module.Sweep(
        name="t",
        base={"epochs": 2, "train_size": 100, "width": 4},
        grid={"seed": [0, 1, 2], "lr": [0.01, 0.1]},
    )
    assert run(sweep, tmp_path / "z.zarr", workers=0, backend="eager").complete
    view = zoo_module.open(tmp_path / "z.zarr").query()
    for form in FORMS:
        data = view.torch_dataset(form, targets="lr", transforms=[Noise(0.1)])
        alone = list(DataLoader(data, batch_size=4))
        options = {"num_workers": 2, "multiprocessing_context": "fork", "pin_memory": True}
        loaders = [DataLoader(data, batch_size=4, **options), data.loader(4, **options)]
        if form == "graph":  # its batches are made by a function that a new process must know
            fresh = {"num_workers": 1, "multiprocessing_context": "spawn"}
            loaders.append(DataLoader(data, batch_size=4, **fresh))
        for loader in loaders:
            for one, other in zip(alone, loader, strict=True):
                assert_equal(one, other)
    # workers that stay see the epoch that the parent sets
    noisy = view.torch_dataset("flat", transforms=[Noise(0.1)])
    loader = DataLoader(noisy, batch_size=4, num_workers=1, persistent_workers=True)
    before = torch.cat([x for x, _ in loader])
    noisy.set_epoch(1)
    after = torch.cat([x for x, _ in loader])
    assert not (before == after).all(1).any()


def test_default_collate_knows_the_forms_without_a_loader(zoo):
    data = zoo.query().torch_dataset("graph", targets="seed")
    x, y = default_collate([data[0], data[5], data[1]])
    assert x.graphs == 3
    assert torch.equal(y, torch.stack([data[i][1] for i in (0, 5, 1)]))
    assert torch.equal(x.batch[x.edge_index[0]], x.batch[x.edge_index[1]])
