"""Runs as pandas tables, whichever experiment wrote them."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

from trainrig.results import load, load_curves

pandas = pytest.importorskip("pandas")


def write_run(path, config, rows=(), **status):
    """Write a run directory."""
    (path / "logs").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "environment.json").write_text("{}")
    (path / "status.json").write_text(json.dumps(status))
    (path / "logs/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def sweep(tmp_path):
    """Two runs that differ in a rate, a list and the seed."""
    for seed, loss in ((0, 3.0), (1, None)):
        optimizer = {"lr": [0.1, 0.2][seed], "betas": [0.9, [0.9, 0.95][seed]], "name": "adam"}
        write_run(
            tmp_path / f"s/run{seed}",
            {"optimizer": optimizer, "seed": seed},
            [{"step": 1, "split": "train", "loss": 5.0}, {"step": 2, "split": "val", "loss": loss}],
            status="diverged" if loss is None else "complete",
            message="loss not finite" if loss is None else "",
        )
    return tmp_path / "s"


def test_one_row_per_run_with_what_differs_and_what_was_reached(sweep):
    runs = load(sweep)
    assert list(runs.index) == ["run0", "run1"]
    assert list(runs["status"]) == ["complete", "diverged"]
    assert list(runs["message"]) == ["", "loss not finite"]
    assert list(runs["optimizer.lr"]) == [0.1, 0.2]
    assert list(runs["optimizer.betas"]) == [(0.9, 0.9), (0.9, 0.95)]
    assert "optimizer.name" not in runs
    assert list(runs["train/loss"]) == [5.0, 5.0]
    assert runs["val/loss"]["run0"] == 3.0
    assert math.isnan(runs["val/loss"]["run1"])
    assert list(runs["step"]) == [2, 2]
    assert runs.groupby("optimizer.betas").size().tolist() == [1, 1]


def test_the_whole_configuration_on_request(sweep):
    assert list(load(sweep, whole_config=True)["optimizer.name"]) == ["adam", "adam"]


def test_curves_carry_the_settings_that_differ(sweep):
    curves = load_curves(sweep)
    assert list(curves.columns[:3]) == ["run", "step", "split"]
    assert list(curves["step"]) == [1, 2, 1, 2]
    train = curves[curves["split"] == "train"]
    assert train.set_index("seed")["loss"].to_dict() == {0: 5.0, 1: 5.0}


def test_a_deepobs_folder_and_a_reconstruction(tmp_path):
    folder = tmp_path / "d/quadratic_deep/Adam/setting"
    folder.mkdir(parents=True)
    for seed in (1, 2):
        curves = {f"{split}_losses": [9.0, 8.0 - seed] for split in ("train", "test")}
        content = {"testproblem": "quadratic_deep", "optimizer": "Adam", "batch_size": 128}
        content |= {"num_epochs": 1, "random_seed": seed, "hyperparams": {}, "learning_rate": 0.01}
        (folder / f"random_seed__{seed}__x.json").write_text(json.dumps(content | curves))
    runs = load(tmp_path / "d")
    assert list(runs["counts"]) == ["epoch", "epoch"]
    assert runs.set_index("random_seed")["test/loss"].to_dict() == {1: 7.0, 2: 6.0}

    (tmp_path / "p").mkdir()
    np.savez(tmp_path / "p/reconstruction.npz", object=np.ones((4, 4), complex))
    (tmp_path / "p/metrics.json").write_text(json.dumps({"ssim_amp": 0.5}))
    assert load(tmp_path / "p")["evaluation/ssim_amp"].tolist() == [0.5]


def test_nothing_to_load_is_said(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no runs; give a run, or a folder above"):
        load_curves(tmp_path)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^trainrig.results: pandas is not installed; pip"):
        load(tmp_path)
