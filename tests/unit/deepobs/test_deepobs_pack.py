from __future__ import annotations

import itertools
import json

import pytest
import torch

from deepobs.pytorch import config
from deepobs.pytorch.datasets.generated import write_generated_data, write_idx
from deepobs.pytorch.runners import StandardRunner, pack, run_pack
from deepobs.pytorch.runners.job import Job
from deepobs.pytorch.runners.pack import train_together
from deepobs.pytorch.tuner import GridSearch
from trainrig import recorder
from trainrig.optim import resolve_optimizer
from trainrig.stopping import StopRequest

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
def test_weights_stay_equal(tmp_path, name, dtype, epochs, bound):
    config.set_dtype(dtype)
    runner, hyperparams = settings_of(name)
    chosen = {"num_epochs": epochs, "batch_size": 20}
    settings = [runner.make_settings("mnist_mlp", given, **chosen) for given in hyperparams[:2]]
    names = [one.run_name for one in settings]
    jobs, data = [], None
    for place, one in enumerate(settings):
        problem, optimizer = runner.build(one, data)
        data = problem.data
        folder = tmp_path / str(place)
        jobs.append(
            Job(settings=one, problem=problem, optimizer=optimizer, folder=folder, pack=names)
        )
    train_together(jobs)
    for job, one in zip(jobs, settings, strict=True):
        problem, optimizer = runner.build(one)
        start = [p.detach().clone() for p in problem.net.parameters()]
        runner.training(Job(settings=one, problem=problem, optimizer=optimizer, folder=None))
        theirs = list(problem.net.parameters())
        for ours, other, first in zip(job.problem.net.parameters(), theirs, start, strict=True):
            assert (ours - other).norm() <= bound * other.norm()
            assert (other - first).norm() > 1e-4 * other.norm()


@pytest.mark.parametrize(
    "problem",
    [
        *("quadratic_deep", "two_d_branin", "fmnist_2c2d", "cifar10_3c3d", "mnist_vae"),
        pytest.param("svhn_wrn164", marks=pytest.mark.slow),
    ],
)
def test_other_problems_equal_separate_runs(tmp_path, problem):
    """Convolutions, L2, batch normalisation, noise, augmentation: as each member has them alone."""
    write_generated_data(tmp_path / "all", examples=24)
    config.set_data_dir(tmp_path / "all")
    config.set_dtype("float64")
    runner = StandardRunner(torch.optim.SGD, {"lr": {"type": float}})
    hyperparams = [{"lr": 1e-3}, {"lr": 1e-4}]
    arguments = {"batch_size": 8, "num_epochs": 1, "train_log_interval": 1}
    packed = run_pack(runner, problem, hyperparams, output_dir=tmp_path / "packed", **arguments)
    for given, output in zip(hyperparams, packed, strict=True):
        where = {"output_dir": tmp_path / "separate", "verbose": False}
        assert_equal_but_for_rounding(output, runner.run(problem, given, **where, **arguments))


@pytest.mark.parametrize("name", ["Momentum", "Adam"])
def test_a_pack_killed_between_checkpoints_goes_on(tmp_path, monkeypatch, name):
    """One member is a checkpoint ahead of the other; both end as if nothing had happened."""
    runner, hyperparams = settings_of(name)
    arguments = {**RUN, "num_epochs": 3, "checkpoint_interval_s": 0.0}
    whole = run_pack(runner, "mnist_mlp", hyperparams[:2], output_dir=tmp_path / "a", **arguments)
    calls = []
    original = recorder.save_checkpoint

    def dying(*given, **options):
        calls.append(given)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(*given, **options)

    monkeypatch.setattr(recorder, "save_checkpoint", dying)
    with pytest.raises(KeyboardInterrupt):
        run_pack(runner, "mnist_mlp", hyperparams[:2], output_dir=tmp_path / "b", **arguments)
    monkeypatch.setattr(recorder, "save_checkpoint", original)
    again = run_pack(runner, "mnist_mlp", hyperparams[:2], output_dir=tmp_path / "b", **arguments)
    for first, second in zip(whole, again, strict=True):
        del first["timing"], second["timing"]
        assert first == second


def test_a_member_that_diverged_keeps_its_place_in_a_resumed_pack(tmp_path, monkeypatch):
    runner, hyperparams = settings_of("SGD")  # the last one diverges
    arguments = {**RUN, "num_epochs": 3, "checkpoint_interval_s": 0.0}
    whole = run_pack(runner, "mnist_mlp", hyperparams, output_dir=tmp_path / "a", **arguments)
    assert [output["status"] for output in whole] == ["complete", "complete", "diverged"]
    original, looks = StopRequest.due, itertools.count(1)

    def due(request):
        if next(looks) == 20:
            raise KeyboardInterrupt
        return original(request)

    monkeypatch.setattr(StopRequest, "due", due)
    with pytest.raises(KeyboardInterrupt):
        run_pack(runner, "mnist_mlp", hyperparams, output_dir=tmp_path / "b", **arguments)
    monkeypatch.setattr(StopRequest, "due", original)
    assert len(list((tmp_path / "b").rglob("random_seed__*.json"))) == 1
    again = run_pack(runner, "mnist_mlp", hyperparams, output_dir=tmp_path / "b", **arguments)
    for first, second in zip(whole, again, strict=True):
        del first["timing"], second["timing"]
        assert first == second


def test_a_pack_saves_by_the_clock_and_when_asked_to_stop(tmp_path, monkeypatch):
    runner, hyperparams = settings_of("SGD")
    monkeypatch.setattr(recorder, "COST_FACTOR", 0)
    arguments = {**RUN, "checkpoint_interval_s": 1e-9}
    saved = []
    original = recorder.save_checkpoint
    monkeypatch.setattr(
        recorder, "save_checkpoint", lambda *a, **k: saved.append(a[1]) or original(*a, **k)
    )
    run_pack(runner, "mnist_mlp", hyperparams[:2], output_dir=tmp_path, **arguments)
    assert saved == [step for step in range(11) for _ in range(2)]  # 2 epochs of 5 steps


def test_a_pack_without_memory_is_halved(tmp_path, monkeypatch):
    runner, hyperparams = settings_of("SGD")
    original, sizes = pack.train_together, []

    def hungry(jobs):
        sizes.append(len(jobs))
        if len(jobs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        original(jobs)

    monkeypatch.setattr(pack, "train_together", hungry)
    where = {"output_dir": tmp_path, **RUN}
    outputs = run_pack(runner, "mnist_mlp", hyperparams, **where)
    assert sizes == [3, 2, 1]
    assert [output["learning_rate"] for output in outputs] == [1e-3, 0.05, 1e30]
    assert [output["timing"]["pack"] for output in outputs] == [2, 2, 1]

    def starving(jobs):
        raise MemoryError

    monkeypatch.setattr(pack, "train_together", starving)
    with pytest.raises(MemoryError, match="out of memory with a single member"):
        run_pack(runner, "mnist_mlp", [{"lr": 1e-4}], **where)


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
        ("tolstoi_char_rnn", torch.optim.SGD, "runs of this problem cannot be packed"),
        ("mnist_mlp", torch.optim.LBFGS, "re-evaluates the loss"),
        ("mnist_mlp", resolve_optimizer("lion"), "cannot be packed; those of SGD, Adam"),
    ],
)
def test_what_cannot_be_packed_is_refused(tmp_path, problem, optimizer, text):
    write_generated_data(tmp_path / "all", examples=24)
    config.set_data_dir(tmp_path / "all")
    runner = StandardRunner(optimizer, {"lr": {"type": float}})
    with pytest.raises(ValueError, match=text):
        run_pack(runner, problem, [{"lr": 0.1}], output_dir=tmp_path, **RUN)
    assert not list(tmp_path.rglob("random_seed__*.json"))


def test_pack_must_be_positive():
    with pytest.raises(ValueError, match="pack is 0"):
        GridSearch(torch.optim.SGD, {"lr": {}}, {"lr": [1.0]}, 1, StandardRunner, pack=0)
