"""``run(config)`` of DeepOBS: a run that trains, one that writes nothing, one that is there."""

from __future__ import annotations

import json

import pytest

from deepobs.experiment import DeepObsConfig, Runtime, run, settings_of


def test_the_result_is_that_of_the_file(tmp_path):
    config = DeepObsConfig(
        testproblem="quadratic_deep", optimizer="Momentum", lr=0.01, num_epochs=1, random_seed=7
    )
    result = run(config, Runtime(verbose=False), path=tmp_path)
    content = json.loads(result.path.read_text())
    assert content["optimizer_hyperparams"] == {"lr": 0.01, "momentum": 0.99, "nesterov": False}
    assert content["random_seed"] == 7
    assert result.metrics["test"] == {"loss": content["test_losses"][-1]}
    assert (result.status, result.step, result.counts, result.message) == (
        "complete",
        1,
        "epoch",
        "",
    )

    again = run(config, Runtime(verbose=False), path=tmp_path)
    assert again.path == result.path
    assert again.metrics == result.metrics
    assert again.message == f"{result.path}: there already; --again repeats it"

    silent = run(config, Runtime(verbose=False, no_logs=True), path=tmp_path / "none")
    assert silent.path is None
    assert silent.metrics["train"] == result.metrics["train"]
    assert not (tmp_path / "none").exists()


def test_hyperparameters_left_alone_are_no_part_of_the_name():
    config = DeepObsConfig(testproblem="quadratic_deep", optimizer="Adam", lr=1.0)
    settings = settings_of(config)
    assert settings.hyperparams == {"lr": 1.0}
    assert settings.optimizer_name == "Adam"
    assert settings.random_seed == 42


def test_an_unknown_hyperparameter_is_refused_before_anything_is_written(tmp_path):
    config = DeepObsConfig(testproblem="quadratic_deep", lr=0.1, hyperparams={"momentun": 0.9})
    with pytest.raises(
        KeyError, match="unknown hyperparameter 'momentun'; did you mean 'momentum'"
    ):
        run(config, path=tmp_path)
    assert not any(tmp_path.iterdir())
