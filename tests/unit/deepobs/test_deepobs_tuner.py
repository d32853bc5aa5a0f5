from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runtime import estimate_runtime
from deepobs.pytorch.tuner import GP, GridSearch, RandomSearch, Trial, log_uniform

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
        "quadratic_deep", "scripts/run_deepobs.py", "out dir", generation_dir=tmp_path
    )
    assert path.name == "jobs_SGD_GridSearch_quadratic_deep.txt"
    lines = path.read_text().splitlines()
    assert len(lines) == 4
    assert lines[0] == (
        "python scripts/run_deepobs.py quadratic_deep --lr 0.1 --random_seed 1 "
        "--output_dir 'out dir'"
    )


def test_benchmark_sets_fix_the_defaults(tmp_path):
    with pytest.raises(ValueError, match="'num_epochs' is fixed"):
        grid().tune_on_testset(["quadratic_deep"], tmp_path, num_epochs=1)


def test_bayesian_search(tmp_path):
    pytest.importorskip("optuna")
    tuner = GP(torch.optim.SGD, LR, {"lr": (1e-4, 2e-2)}, 6, StandardRunner)
    best = tuner.tune("quadratic_deep", tmp_path, **RUN)
    assert len(tuner.trials) == 6
    assert best.cost() == min(trial.cost() for trial in tuner.trials)
    with pytest.raises(ValueError, match="depend on earlier results"):
        tuner.propose(1)


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
