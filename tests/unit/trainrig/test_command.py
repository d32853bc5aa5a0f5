"""``trainrig config diff``."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainrig.command import main


@pytest.fixture
def runs(tmp_path):
    for name, lr in (("a", 0.1), ("b", 0.2)):
        (tmp_path / name).mkdir()
        config = {"optimizer": {"lr": lr}, "seed": 1} | ({"new": 3} if name == "b" else {})
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    return tmp_path / "a", tmp_path / "b"


def test_only_what_differs_is_listed(runs, capsys):
    assert main(["config", "diff", *map(str, runs)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["new: (absent) -> 3", "optimizer.lr: 0.1 -> 0.2"]
    assert main(["config", "diff", str(runs[0]), str(runs[0])]) == 0
    assert capsys.readouterr().out.endswith("equal configurations\n")


def test_a_folder_that_is_no_run_is_one_line(runs, tmp_path, capsys):
    assert main(["config", "diff", str(runs[0]), str(tmp_path)]) == 1
    assert "config.json: no such file" in capsys.readouterr().err


def test_a_mistyped_command_is_usage(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["confg"])
    assert ended.value.code == 2


def test_data_commands_end_to_end(tmp_path, capsys):
    source, root = tmp_path / "source", tmp_path / "data"
    (source / "tolstoi").mkdir(parents=True)
    (source / "tolstoi/war-and-peace.txt").write_text("another edition")
    where = ["--data-dir", str(root)]
    assert main(["data", "list", *where]) == 0
    assert "tolstoi        missing  by hand   trainrig data get tolstoi" in capsys.readouterr().out
    assert main(["data", "get", "tolstoi", "--source", str(source), *where]) == 1
    assert "this edition has" in capsys.readouterr().err
    assert main(["data", "verify", *where]) == 1
    (root / "tolstoi").mkdir(parents=True)
    for name in ("train", "test"):
        np.save(root / f"tolstoi/{name}.npy", np.arange(5))
    assert main(["data", "verify", *where]) == 1
    assert "the characters hash to" in capsys.readouterr().err
    assert main(["data", "list", *where]) == 0
    assert "tolstoi        found " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["docter"], "did you mean 'doctor'?"),
        (["data", "get", "mnst"], "did you mean 'mnist'?"),
        (["data", "get", "mnist", "--sorce", "x"], "did you mean '--source'?"),
        (["data", "get"], "required: NAME"),
    ],
)
def test_mistakes_name_what_was_meant(words, text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1
