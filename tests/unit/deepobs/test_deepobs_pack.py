from __future__ import annotations

import json

import pytest
import torch

from deepobs.pytorch import config
from deepobs.pytorch.datasets.generated import write_idx
from deepobs.pytorch.runners import StandardRunner, run_pack
from deepobs.pytorch.runners.dense import DenseChain, SharedBatch, SparseMatrix
from deepobs.pytorch.runners.pack import Pack
from deepobs.pytorch.runners.session import SaveClock
from deepobs.pytorch.runners.sinks import Sinks
from deepobs.pytorch.testproblems import mnist_mlp
from deepobs.pytorch.tuner import GridSearch

RUN = {"batch_size": 20, "num_epochs": 2, "train_log_interval": 1}
CASES = {
    "SGD": (torch.optim.SGD, {}, (1e-3, 0.05, 1e30)),
    "Momentum": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}, (1e-3, 0.02, 1e30)),
    "Adam": (torch.optim.Adam, {"betas": (0.8, 0.99)}, (1e-4, 1e-3)),
    "RMSprop": (torch.optim.RMSprop, {}, (1e-4, 1e-3)),
}


@pytest.fixture(autouse=True)
def digits(tmp_path):
    """Random images three quarters of whose pixels are zero, about as many as in MNIST."""
    import gzip

    import numpy as np

    write_idx(tmp_path / "data" / "mnist", 100, np.random.RandomState(0))
    for name in ("train", "t10k"):
        path = tmp_path / "data" / "mnist" / f"{name}-images-idx3-ubyte.gz"
        raw = bytearray(gzip.decompress(path.read_bytes()))
        pixels = np.frombuffer(raw, np.uint8, offset=16).reshape(100, 28, 28)
        pixels[:, :21] = 0
        path.write_bytes(gzip.compress(bytes(raw), 1))
    config.set_data_dir(tmp_path / "data")


def settings_of(name):
    optimizer, fixed, lrs = CASES[name]
    names = {key: {"default": value} for key, value in fixed.items()} | {"lr": {"type": float}}
    return StandardRunner(optimizer, names, name), [{"lr": lr} for lr in lrs]


def assert_equal_but_for_rounding(packed, separate):
    assert packed.keys() == separate.keys()
    for key, expected in separate.items():
        if key.endswith(("losses", "accuracies")):
            assert len(packed[key]) == len(expected), key
            finite = [v for v in expected if v is not None]
            assert [v for v in packed[key] if v is not None] == pytest.approx(finite, rel=1e-9)
        elif key != "timing":
            assert packed[key] == expected, key


@pytest.mark.parametrize("name", CASES)
def test_packed_runs_equal_separate_ones(tmp_path, name):
    # RMSprop and Adam divide by what a gradient was: one that is rounding decides a whole step. In
    # float32 that moves a loss by 1e-4 and more; in float64 nothing but a mistake does.
    config.set_dtype("float64")
    runner, hyperparams = settings_of(name)
    packed = run_pack(runner, "mnist_mlp", hyperparams, output_dir=tmp_path / "packed", **RUN)
    for given, output in zip(hyperparams, packed, strict=True):
        where = {"output_dir": tmp_path / "separate", "verbose": False}
        separate = runner.run("mnist_mlp", given, **where, **RUN)
        assert_equal_but_for_rounding(output, separate)
        assert output["timing"]["pack"] == len(hyperparams)
    trees = [
        sorted(str(p.parent.relative_to(root)) for p in root.rglob("random_seed__*.json"))
        for root in (tmp_path / "packed", tmp_path / "separate")
    ]
    assert trees[0] == trees[1]
    assert len(trees[0]) == len(hyperparams)


@pytest.mark.parametrize(
    ("name", "dtype", "epochs", "bound"),
    [
        # Rounding grows along a path, the faster the larger the learning rate; float64 has room.
        ("Momentum", "float64", 4, 1e-11),
        ("Adam", "float64", 4, 1e-9),
        pytest.param("SGD", "float64", 20, 1e-11, marks=pytest.mark.slow),
    ],
)
def test_weights_stay_equal(name, dtype, epochs, bound):
    config.set_dtype(dtype)
    runner, hyperparams = settings_of(name)
    chosen = {"num_epochs": epochs, "batch_size": 20}
    settings = [runner.make_settings("mnist_mlp", given, **chosen) for given in hyperparams[:2]]
    silent = lambda _: None  # noqa: E731 - a stand-in
    sessions = [runner.make_session(s, silent, Sinks()) for s in settings]
    twins = [runner.make_session(s, silent, Sinks()) for s in settings]
    Pack(sessions).run(SaveClock(None, 60.0))
    for session, twin in zip(sessions, twins, strict=True):
        start = [p.detach().clone() for p in twin.problem.net.parameters()]
        twin.run()
        assert twin.epoch * len(twin.problem.data.train) == 5 * epochs
        theirs = list(twin.problem.net.parameters())
        for ours, other, first in zip(session.problem.net.parameters(), theirs, start, strict=True):
            assert (ours - other).norm() <= bound * other.norm()
            assert (other - first).norm() > 1e-4 * other.norm()


@pytest.mark.parametrize("sparse", [True, False])
def test_gradients_equal_autograd(sparse):
    problem = mnist_mlp(20)
    problem.set_up()
    optimizer = torch.optim.SGD(problem.net.parameters(), lr=0.1)
    chain = DenseChain(problem)
    layers = chain.adopt(problem, optimizer)
    batch = next(problem.data.train.batches(0))
    if not sparse:
        batch = (batch[0] + 0.1, batch[1])
    shared = SharedBatch.of(batch)
    assert isinstance(shared.by_input, SparseMatrix) == sparse
    loss = chain.gradients(layers, shared)
    ours = [parameter.grad.clone() for parameter in problem.net.parameters()]
    expected = problem.objective(batch)
    theirs = torch.autograd.grad(expected, list(problem.net.parameters()))
    torch.testing.assert_close(loss, expected.detach())
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["Momentum", "Adam"])
def test_a_pack_killed_between_checkpoints_goes_on(tmp_path, monkeypatch, name):
    """One member is a checkpoint ahead of the other; both end as if nothing had happened."""
    runner, hyperparams = settings_of(name)
    arguments = {**RUN, "num_epochs": 3, "checkpoint_interval_s": 0.0}
    whole = run_pack(runner, "mnist_mlp", hyperparams[:2], output_dir=tmp_path / "a", **arguments)
    calls = []
    from deepobs.pytorch.runners import run_folder as module

    original = module.save_checkpoint

    def dying(*given):
        calls.append(given)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(module, "save_checkpoint", dying)
    with pytest.raises(KeyboardInterrupt):
        run_pack(runner, "mnist_mlp", hyperparams[:2], output_dir=tmp_path / "b", **arguments)
    monkeypatch.setattr(module, "save_checkpoint", original)
    again = run_pack(runner, "mnist_mlp", hyperparams[:2], output_dir=tmp_path / "b", **arguments)
    for first, second in zip(whole, again, strict=True):
        del first["timing"], second["timing"]
        assert first == second


def test_the_tuner_packs_and_reuses_results(tmp_path):
    names = {"lr": {"type": float}}
    tuner = GridSearch(
        torch.optim.SGD, names, {"lr": [1e-3, 1e-2, 0.1]}, 3, StandardRunner, pack=2, seeds=[1, 2]
    )
    best = tuner.tune("mnist_mlp", tmp_path, **RUN)
    files = sorted(tmp_path.rglob("random_seed__*.json"))
    packs = sorted(json.loads(file.read_text())["timing"]["pack"] for file in files)
    assert packs == [1, 1, 2, 2, 2, 2]
    assert tuner.tune("mnist_mlp", tmp_path, **RUN) == best
    assert sorted(tmp_path.rglob("random_seed__*.json")) == files


@pytest.mark.parametrize(
    ("problem", "optimizer", "text"),
    [
        ("quadratic_deep", torch.optim.SGD, "cannot be packed; accepted are dense networks"),
        ("mnist_2c2d", torch.optim.SGD, "cannot be packed; accepted are dense networks"),
        ("mnist_mlp", torch.optim.LBFGS, "re-evaluates the loss"),
    ],
)
def test_what_cannot_be_packed_is_refused(tmp_path, problem, optimizer, text):
    runner = StandardRunner(optimizer, {"lr": {"type": float}})
    with pytest.raises(ValueError, match=text):
        run_pack(runner, problem, [{"lr": 0.1}], output_dir=tmp_path, **RUN)
    assert not list(tmp_path.rglob("random_seed__*.json"))


def test_pack_must_be_positive():
    with pytest.raises(ValueError, match="pack is 0"):
        GridSearch(torch.optim.SGD, {"lr": {}}, {"lr": [1.0]}, 1, StandardRunner, pack=0)
