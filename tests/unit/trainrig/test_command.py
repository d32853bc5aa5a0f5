"""``trainrig config diff``."""

from __future__ import annotations

import json

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
