"""The comparison on three small runs: every table, every figure, one page."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from optimizer_quality.comparison import MEASURES

SMALL = {
    "--n-probe": 40,
    "--n-hessian": 30,
    "--n-statistics": 40,
    "--n-clean": 40,
    "--n-shift": 20,
    "--lanczos-steps": 5,
    "--trace-probes": 2,
    "--n-points": 3,
    "--lines-per-kind": 1,
    "--feature-steps": 2,
}


@pytest.fixture(scope="session")
def compared_runs(repo_root, tmp_path_factory):
    """Two seeds of one optimizer and one run of another."""
    from run_experiment import main

    folder = tmp_path_factory.mktemp("solutions")
    config = repo_root / "configs/optimizer_quality/base_config.yaml"
    for optimizer, lr, seed in (("sgd", "0.1", "0"), ("sgd", "0.1", "1"), ("adamw", "1e-3", "0")):
        arguments = [
            *("--config", str(config), "--optimizer", optimizer, "--lr", lr, "--seed", seed),
            *("--dataset", "synthetic", "--num-epochs", "1", "--no-track", "--quiet"),
            *("--set", "model=resnet8_6n2", "--set", "train_items=100"),
            *("--set", f"results_dir={folder}/r", "--set", f"log_dir={folder}/l"),
        ]
        assert main(arguments) == 0
    return folder / "r"


def run_of(folder, optimizer, seed):
    (path,) = folder.glob(f"{optimizer}_*seed{seed}")
    return path


@pytest.fixture
def compare(compared_runs, tmp_path):
    def run(*extra, paths=None):
        from compare_solutions import main

        runs = paths or sorted(compared_runs.glob("*_seed*"))
        settings = [str(part) for pair in SMALL.items() for part in pair]
        return main([*map(str, runs), "--output-dir", str(tmp_path / "out"), *settings, *extra])

    return run


def test_every_measure_leaves_a_table_and_a_figure(compare, tmp_path):
    assert compare() == 0
    out = tmp_path / "out"
    for name, measure in MEASURES.items():
        rows = list(csv.DictReader((out / f"{name}.csv").open()))
        assert rows, name
        assert tuple(rows[0]) == measure.columns
        assert (out / f"{name}.png").stat().st_size > 5000
        assert (out / f"{name}.pdf").exists()
    with np.load(out / "features.npz") as pictures:
        assert {name: pictures[name].shape for name in pictures} == {
            "adamw": (10, 32, 32, 3),
            "sgd": (10, 32, 32, 3),
        }
        assert all(pictures[name].std() > 0 for name in pictures)
    page = (out / "report.html").read_text()
    assert page.count("<img ") == len(MEASURES)
    assert "src='http" not in page
    assert "different optimizers name different classes" in page
    assert "drawn, not photographed" in page
    for row in csv.DictReader((out / "accuracy.csv").open()):
        assert row["train_loss"] != row["running_train_loss"]
        assert float(row["test_accuracy"]) == float(row["logged_test_accuracy"])
    kinds = {row["kind"] for row in csv.DictReader((out / "disagreement.csv").open())}
    assert kinds == {"sgd seeds", "adamw / sgd"}


def test_a_copied_run_is_compared_once(compare, compared_runs, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run_of(compared_runs, "sgd", 0), copy)
    runs = [*sorted(compared_runs.glob("*_seed*")), copy, run_of(compared_runs, "sgd", 1)]
    assert compare("--only", "disagreement", paths=runs) == 0
    rows = list(csv.DictReader((tmp_path / "out/disagreement.csv").open()))
    assert len(rows) == 3
    assert "is there 2 times; it counts once, the newest" in capsys.readouterr().err


def test_settings_of_one_optimizer_are_told_apart(compare, compared_runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run_of(compared_runs, "sgd", 0), other)
    config = json.loads((other / "config.json").read_text())
    config["optimizer"]["lr"] = 0.2
    (other / "config.json").write_text(json.dumps(config))
    runs = [*sorted(compared_runs.glob("sgd_*seed*")), other]
    assert compare("--only", "disagreement", paths=runs) == 0
    rows = list(csv.DictReader((tmp_path / "out/disagreement.csv").open()))
    assert [row["kind"] for row in rows] == ["sgd lr 0.1 seeds", *["sgd lr 0.1 / sgd lr 0.2"] * 2]


def test_hessian_is_not_computed_again(compare, compared_runs, tmp_path, monkeypatch):
    from optimizer_quality import comparison

    runs = sorted(compared_runs.glob("*_seed*"))
    assert compare("--only", "hessian", paths=runs[:2]) == 0
    asked, table = [], tmp_path / "out/hessian.csv"
    first = table.read_text()
    compute = comparison.lanczos

    def counted(*arguments, **options):
        asked.append(1)
        return compute(*arguments, **options)

    monkeypatch.setattr(comparison, "lanczos", counted)
    assert compare("--only", "hessian", paths=runs[:2]) == 0
    assert (table.read_text(), asked) == (first, [])
    assert compare("--only", "hessian", paths=runs) == 0
    assert len(asked) == 3  # one for each coordinates
    assert table.read_text().startswith(first.splitlines()[0])
    assert compare("--only", "hessian", "--lanczos-steps", "6", paths=runs[:2]) == 0
    assert len(asked) == 9  # other settings, other figures


def test_mistakes_are_one_line(compare, compared_runs, tmp_path, capsys):
    assert compare("--only", "hesian") == 1
    assert "did you mean 'hessian'" in capsys.readouterr().err
    assert compare(paths=[run_of(compared_runs, "sgd", 0)]) == 1
    assert "at least two" in capsys.readouterr().err
    copy = tmp_path / "unfinished"
    shutil.copytree(run_of(compared_runs, "sgd", 0), copy)
    (copy / "status.json").write_text('{"status": "running"}')
    assert compare(paths=[copy, run_of(compared_runs, "sgd", 1)]) == 1
    assert "only complete runs" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["final_model.pt", "metrics.json"])
@pytest.mark.parametrize("content", [None, b"", b"<html></html>", b"PK\x03\x04", b"\x80\x02K\x03."])
def test_a_damaged_file_of_a_run_is_named_in_one_line(
    compare, compared_runs, tmp_path, capsys, file, content
):
    copy = tmp_path / "copy"
    shutil.copytree(run_of(compared_runs, "sgd", 0), copy)
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_bytes(content)
    assert compare(paths=[copy, run_of(compared_runs, "sgd", 1)]) == 1
    said = capsys.readouterr().err
    assert f"error: {copy / file}: " in said
    assert len(said.splitlines()) == 1
