from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from deepobs.analyzer.results import read_results
from deepobs.analyzer.tables import make_rows
from deepobs.experiment import DeepObsConfig, Runtime, run
from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runtime import estimate_runtime
from deepobs.pytorch.tuner import GP, GridSearch, RandomSearch, Trial, log_uniform
from deepobs.pytorch.tuner.assembly import Space, make_tuner

LR = {"lr": {"type": float}}
RUN = {"num_epochs": 1, "batch_size": 1000}


def grid(values=(1e-3, 1e-2, 1e6), **options):
    return GridSearch(torch.optim.SGD, LR, {"lr": values}, 5, StandardRunner, **options)


def test_grid_search_finds_the_best_and_survives_divergence(tmp_path):
    tuner = grid(seeds=[1, 2])
    best = tuner.tune("quadratic_deep", tmp_path, num_epochs=3, batch_size=100)
    assert best.hyperparams == {"lr": 1e-2}
    assert len(best.values) == 2
    assert best.metric == "test_losses"
    curve = tuner.budget_curve()
    assert (np.diff(curve) <= 0).all()
    lines = (tmp_path / "quadratic_deep" / "SGD" / "tuning_log.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert records[0]["params"] == {"lr": 1e-2}
    assert records[-1]["test_losses_mean"] is None


def test_the_best_setting_can_be_rerun_with_nine_seeds(tmp_path):
    grid((1e-2,)).tune("quadratic_deep", tmp_path, rerun_best_setting=True, **RUN)
    seeds = {path.name.split("__")[1] for path in tmp_path.rglob("random_seed__*.json")}
    assert seeds == {str(seed) for seed in range(42, 52)}


def test_a_finished_search_reuses_its_results_and_counts_each_seed_once(tmp_path, monkeypatch):
    trained = []
    training = StandardRunner.training
    monkeypatch.setattr(
        StandardRunner, "training", lambda *args: trained.append(1) or training(*args)
    )
    best = grid((1e-3, 1e-2), seeds=[2, 1]).tune("quadratic_deep", tmp_path, **RUN)
    assert len(trained) == 4
    again = grid(("1e-2", 0.001), seeds=[1, 2]).tune("quadratic_deep", tmp_path, **RUN)
    assert len(trained) == 4
    assert again.hyperparams == best.hyperparams
    assert again.values == best.values[::-1]
    row = make_rows(read_results(tmp_path))[0]
    assert row.n == 2
    lines = (tmp_path / "quadratic_deep/SGD/tuning_log.json").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [2, 2]


def test_a_second_search_keeps_the_settings_of_the_first_in_the_log(tmp_path):
    grid((1e-3, 1e-2), seeds=[1, 2]).tune("quadratic_deep", tmp_path, **RUN)
    longer = RUN | {"num_epochs": 2}
    grid((1e-4,), seeds=[1]).tune("quadratic_deep", tmp_path, **longer)
    best = grid((1e-3, 1e-5), seeds=[1]).tune("quadratic_deep", tmp_path, **RUN)
    assert best.hyperparams == {"lr": 1e-3}  # of its own settings
    lines = (tmp_path / "quadratic_deep/SGD/tuning_log.json").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["params"]["lr"], r["trial"], r["n"], r.get("differs")) for r in records] == [
        (1e-2, None, 2, None),
        (1e-3, 1, 1, None),
        (1e-5, 2, 1, None),
        (1e-4, None, 1, "num_epochs: 1 -> 2"),
    ]


def test_an_interrupted_search_trains_no_finished_point_again(tmp_path, monkeypatch):
    trained = []
    training = StandardRunner.training

    def counted(self, job):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(job.settings.learning_rate)
        training(self, job)

    monkeypatch.setattr(StandardRunner, "training", counted)
    with pytest.raises(KeyboardInterrupt):
        grid().tune("quadratic_deep", tmp_path, **RUN)
    monkeypatch.setattr(
        StandardRunner,
        "training",
        lambda self, job: trained.append(job.settings.learning_rate) or training(self, job),
    )
    grid().tune("quadratic_deep", tmp_path, **RUN)
    assert trained == [1e-3, 1e-2, 1e6]


def test_an_interrupted_repetition_repeats_no_point_twice(tmp_path, monkeypatch):
    trained = []
    training = StandardRunner.training

    def counted(self, job):
        if len(trained) == 5:  # three of the search, two of its repetition
            trained.append(None)
            raise KeyboardInterrupt
        trained.append(job.settings.learning_rate)
        training(self, job)

    monkeypatch.setattr(StandardRunner, "training", counted)
    grid().tune("quadratic_deep", tmp_path, **RUN)
    for path in tmp_path.rglob("random_seed__*.json"):  # the name has the time in seconds
        path.rename(path.with_name("random_seed__42__2020-01-01-00-00-00.json"))
    with pytest.raises(KeyboardInterrupt):
        grid().tune("quadratic_deep", tmp_path, skip_if_exists=False, **RUN)
    grid().tune("quadratic_deep", tmp_path, skip_if_exists=False, **RUN)
    assert trained == [1e-3, 1e-2, 1e6, 1e-3, 1e-2, None, 1e6]
    assert len(list(tmp_path.rglob("random_seed__*.json"))) == 6
    assert not list(tmp_path.rglob(".again.json"))
    assert make_rows(read_results(tmp_path))[0].n == 1


def test_a_point_of_a_single_run_is_reused_by_a_search(tmp_path):
    """The two name their folders differently: the search knows fewer hyperparameters."""
    config = DeepObsConfig(
        testproblem="quadratic_deep", lr=1e-2, hyperparams={"momentum": 0.0}, **RUN
    )
    single = run(config, Runtime(verbose=False), path=tmp_path)
    grid((1e-2,)).tune("quadratic_deep", tmp_path, **RUN)
    assert list(tmp_path.rglob("random_seed__*.json")) == [single.path]


@pytest.mark.parametrize("options", [{"seeds": [1, 1]}, {"seeds": []}])
def test_seeds_given_twice_are_refused(options):
    with pytest.raises(ValueError, match="give one or more different values"):
        grid(**options)


def test_a_grid_with_equal_points_is_refused():
    with pytest.raises(ValueError, match="is there twice; give different values"):
        grid((0.1, "1e-1")).propose(0)


def test_all_diverged(tmp_path):
    with pytest.raises(ValueError, match="all 1 settings diverged"):
        grid((1e9,)).tune("quadratic_deep", tmp_path, num_epochs=3, batch_size=100)


def test_grid_larger_than_ressources():
    with pytest.raises(ValueError, match="6 combinations"):
        grid([0.1] * 6)


def test_random_search_depends_on_its_seed_alone():
    def draws(seed):
        space = {"lr": log_uniform(-5, 2)}
        return RandomSearch(torch.optim.SGD, LR, space, 4, StandardRunner).propose(seed)

    assert draws(1) == draws(1) != draws(2)
    assert all(1e-5 <= draw["lr"] <= 1e2 for draw in draws(1))


def test_commands_script(tmp_path):
    tuner = grid((0.1, 0.2), seeds=[1, 2])
    path = tuner.generate_commands_script(
        "quadratic_deep",
        "scripts/run_deepobs.py",
        "out dir",
        generation_dir=tmp_path,
        no_logs=True,
        skip_if_exists=False,
    )
    assert path.name == "jobs_SGD_GridSearch_quadratic_deep.txt"
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        "python scripts/run_deepobs.py quadratic_deep --optimizer SGD --lr 0.1 --random_seed 1 "
        "--output_dir 'out dir' --no_logs"
    )


def test_benchmark_sets_fix_the_defaults(tmp_path):
    with pytest.raises(ValueError, match="'num_epochs' is fixed"):
        grid().tune_on_testset(["quadratic_deep"], tmp_path, num_epochs=1)


def test_bayesian_search(tmp_path):
    pytest.importorskip("optuna", reason="needs the extra 'tuner'")
    tuner = GP(torch.optim.SGD, LR, {"lr": (1e-4, 2e-2)}, 6, StandardRunner)
    best = tuner.tune("quadratic_deep", tmp_path, **RUN)
    assert len(tuner.trials) == 6
    assert best.cost() == min(trial.cost() for trial in tuner.trials)
    with pytest.raises(ValueError, match="depend on earlier results"):
        tuner.propose(1)


def test_search_spaces_are_read_from_texts():
    space = Space(ranges=["lr=1e-3:1e-1", "momentum=0:0.9"], linear=["momentum"])
    tuner = make_tuner("SGD", space, search="random", trials=30, options={})
    draws = tuner.propose(0)
    assert len(draws) == 30
    lrs, momenta = (np.array([draw[name] for draw in draws]) for name in ("lr", "momentum"))
    assert 1e-3 <= lrs.min() < 3e-3 < 3e-2 < lrs.max() <= 1e-1
    assert 0 <= momenta.min() < 0.2 < 0.7 < momenta.max() <= 0.9
    published = make_tuner("Momentum", Space(), options={})
    assert len(published.propose(0)) == 36
    assert published.runner.optimizer_name == "Momentum"
    assert published.specification["momentum"]["default"] == 0.99


@pytest.mark.parametrize(
    ("search", "space", "text"),
    [
        ("grid", {"grid": ["lrr=1"]}, "did you mean 'lr'"),
        ("grid", {"grid": ["lr"]}, "no '=' found"),
        ("grid", {"grid": ["lr=high"]}, "lr is 'high'"),
        ("grid", {"ranges": ["lr=1:2"]}, "a grid has none"),
        ("grid", {"fixed": {"momentun": "1"}}, "did you mean 'momentum'"),
        ("random", {}, "give --range"),
        ("random", {"ranges": ["lr=1"]}, "two numbers LOW:HIGH"),
        ("random", {"ranges": ["lr=2:1"]}, "LOW < HIGH"),
        ("random", {"ranges": ["lr=0:1"]}, "give --linear lr"),
        ("random", {"ranges": ["lr=0:1"], "linear": ["momentum"]}, "no --range of that name"),
    ],
)
def test_mistakes_in_search_spaces(search, space, text):
    with pytest.raises((ValueError, KeyError), match=re.escape(text)):
        make_tuner("SGD", Space(**space), search=search, options={}).propose(0)


def test_bad_bounds():
    with pytest.raises(ValueError, match="0 < low < high"):
        GP(torch.optim.SGD, LR, {"lr": (0.0, 1.0)}, 5, StandardRunner)


def test_accuracy_is_maximised():
    high, low = (Trial({}, [v], "test_accuracies") for v in (0.9, 0.1))
    assert high.cost() < low.cost()


def test_runtime_estimate():
    estimate = estimate_runtime(
        torch.optim.Adam, LR, {"lr": 1e-3}, n_runs=2, testproblem="quadratic_deep", num_epochs=1
    )
    assert estimate.ratios.shape == (2,)
    assert "ratio" in estimate.to_text()
    with pytest.raises(ValueError, match="at least 1"):
        estimate_runtime(torch.optim.Adam, LR, {"lr": 1e-3}, n_runs=0)
