"""The terminal view: where runs are, how fast, whether anybody works on them; nothing touched."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys

import pytest
import watch as script

from trainrig.report.describers import find_runs
from trainrig.results import load
from trainrig.tracking.progress import TAIL_BYTES, last_rows
from trainrig.watch import look, read_line, table

ICL = {"data": {"generator_config": {"n_holdout_classes": 10}}, "training_steps": 400}
CIFAR = {"train_val_split": 0.9, "num_epochs": 3}
DEEPOBS = {
    "testproblem": "mnist_mlp",
    "optimizer_name": "Adam",
    "hyperparams": {"lr": 0.001, "amsgrad": False},
    "num_epochs": 4,
    "random_seed": 7,
}

PTYCHO = {"experiment": "ptychography"}
SYSTEMS = ("icl", "cifar", "deepobs", "ptycho")


def write(path, status, rows, *, pid=None, config=None):
    (path / "logs").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config or ICL))
    (path / "environment.json").write_text("{}")
    (path / "status.json").write_text(json.dumps(status))
    (path / "logs/progress.txt").write_text("".join(rows) + "step=999 split=tr")
    if pid is not None:
        (path / ".lock").write_text(f"pid {pid} on {platform.node()}")


ROWS = [
    "step=100 split=train loss=2.5 weight_l2=7.0 grad_l2=0.5 elapsed=10.0\n",
    "step=100 split=holdout loss=1.0 accuracy_closed=0.75 elapsed=10.0\n",
    "step=200 split=train loss=2.25 weight_l2=8.0 grad_l2=0.25 elapsed=30.0\n",
]


def test_a_run_at_work_has_a_speed_and_a_time_left(tmp_path):
    write(tmp_path / "a", {"status": "running", "step": 0}, ROWS, pid=os.getpid())
    (line,) = look(tmp_path)
    assert (line.name, line.status, line.done, line.total) == ("a", "running", 200, 400)
    assert line.per_second == pytest.approx(100 / 20)
    assert line.seconds_left == pytest.approx(200 / 5)
    assert line.values == {"loss": 2.25, "in-context": 0.75, "|w|": 8.0, "|g|": 0.25}


def test_a_run_whose_process_is_gone_is_stopped(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(tmp_path / "a", {"status": "running", "step": 0}, ROWS, pid=ended.pid)
    line = read_line(tmp_path / "a", "a")
    assert (line.status, line.seconds_left) == ("stopped", None)


def test_epochs_count_where_the_end_is_given_in_them(tmp_path):
    rows = [f"step={10 * e} epoch={e} split=val accuracy=0.5 elapsed={e}.0\n" for e in (1, 2, 3)]
    write(tmp_path / "a", {"status": "complete"}, rows, config=CIFAR)
    line = read_line(tmp_path / "a", "a")
    assert (line.done, line.total, line.unit, line.per_second) == (3, 3, "epoch", 1.0)


def test_a_long_log_is_read_from_its_end(tmp_path):
    path = tmp_path / "progress.txt"
    path.write_text("".join(f"step={i} split=train loss=1.5\n" for i in range(20_000)))
    assert path.stat().st_size > 4 * TAIL_BYTES
    rows = list(last_rows(path))
    assert rows[-1] == {"step": 19_999, "split": "train", "loss": 1.5}
    assert len(rows) < 5_000
    assert [row["step"] for row in rows] == list(range(rows[0]["step"], 20_000))


def test_the_script_prints_once_into_a_pipe_and_touches_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    write(tmp_path / "s/a[1]", {"status": "running", "steps": 400}, ROWS, pid=os.getpid())
    write(tmp_path / "s/b", {"status": "diverged", "step": 7}, [])
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}
    assert script.main([str(tmp_path / "s")]) == 0
    first, second = capsys.readouterr().out.splitlines()[1:]
    seen = ["a[1]", "running", "200/400", "5", "steps/s", "40", "s", "2.25", "0.75", "8", "0.25"]
    assert first.split() == seen
    assert second.split() == ["b", "diverged", "7/400"]
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")} == before


def test_a_folder_without_runs_is_one_line(tmp_path, capsys):
    assert script.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_a_deepobs_run_counts_epochs_and_says_what_it_is(tmp_path):
    rows = [
        "step=0 epoch=0 split=train loss=2.5 accuracy=0.1 elapsed=1.0\n",
        "step=0 epoch=0 split=test loss=2.5 accuracy=0.1 elapsed=1.0\n",
        "step=930 epoch=0 split=minibatch loss=0.75 elapsed=4.0\n",
        "step=937 epoch=1 split=train loss=0.5 accuracy=0.8 elapsed=5.0\n",
        "step=937 epoch=1 split=test loss=0.6 accuracy=0.7 elapsed=6.0\n",
    ]
    path = tmp_path / "mnist_mlp/Adam/setting/.random_seed__7"
    write(path, {"status": "running", "epoch": 0}, rows, pid=os.getpid(), config=DEEPOBS)
    (line,) = look(tmp_path)
    assert line.name == "mnist_mlp Adam lr 0.001 seed 7"
    assert (line.status, line.done, line.total, line.unit) == ("running", 1, 4, "epoch")
    assert line.per_second == pytest.approx(1 / 5)
    assert line.seconds_left == pytest.approx(15)
    assert line.values == {"loss": 0.75, "train": 0.8, "test": 0.7, "test loss": 0.6}


@pytest.mark.parametrize("config", [ICL, CIFAR, DEEPOBS, PTYCHO], ids=SYSTEMS)
@pytest.mark.parametrize(
    ("status", "pid", "seen"),
    [
        ("running", os.getpid(), "running"),
        ("running", 2**22 + 1, "stopped"),  # beyond the largest process number
        ("running", None, "stopped"),
        ("interrupted", None, "interrupted"),
        ("complete", os.getpid(), "complete"),
    ],
    ids=["at work", "killed", "without a lock", "interrupted", "complete"],
)
def test_watch_reports_and_tables_agree_on_a_status(tmp_path, config, status, pid, seen):
    write(tmp_path / "a", {"status": status}, [], pid=pid, config=config)
    assert [line.status for line in look(tmp_path)] == [seen]
    assert [run.status for run in find_runs(tmp_path)] == [seen]
    assert load(tmp_path)["status"].to_list() == [seen]


@pytest.mark.parametrize(
    ("pid", "said", "status"),
    [
        (os.getpid(), "running", "running"),
        (2**22 + 1, "running", "stopped"),
        (0, "complete", "complete"),
    ],
)
def test_a_ptychography_training_counts_epochs(tmp_path, pid, said, status):
    rows = [
        f"step={3 * i} epoch={i} split={split} loss={loss} elapsed={10.0 * i}\n"
        for i, both in ((1, (0.5, 0.6)), (2, (0.25, 0.3)))
        for split, loss in zip(("train", "val"), both, strict=True)
    ]
    state = {"status": said, "epochs": 8}
    write(tmp_path / "scan", state, rows, pid=pid, config=PTYCHO)
    losses = "epoch,train_loss,val_loss\n1,0.5,0.6\n2,0.25,0.3\n"
    (tmp_path / "scan/logs/metrics.csv").write_text(losses)
    (line,) = look(tmp_path)
    assert (line.name, line.status, line.done, line.total) == ("scan", status, 2, 8)
    assert (line.unit, line.per_second) == ("epoch", pytest.approx(0.1))
    assert line.values == {"loss": 0.25, "val loss": 0.3}
    assert [(run.status, run.step) for run in find_runs(tmp_path)] == [(status, 2)]


def test_a_run_of_no_known_experiment_shows_its_loss(tmp_path):
    write(tmp_path / "a", {"status": "running", "steps": 9}, ROWS, config={"mine": 1})
    (line,) = look(tmp_path)
    assert (line.done, line.total, line.values) == (200, 9, {"loss": 2.25})


def test_watching_imports_no_torch():
    code = (
        "import sys; sys.modules.update(torch=None, matplotlib=None, lightning=None)\n"
        "from trainrig.watch import look\nfrom trainrig.report.describers import describers\n"
        "assert len(describers()) >= 4"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


NAMES = [f"class100_wd1.5_seed{seed}_sum_squares_from_a_grid" for seed in range(2)]


@pytest.fixture
def sweep(tmp_path):
    for name in NAMES:
        write(tmp_path / name, {"status": "running"}, ROWS, pid=os.getpid())
    return tmp_path


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_names_are_whole_at_every_width(sweep, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table(look(sweep), console.width))
    text = console.file.getvalue()
    column = [line.split("  ")[0].strip() for line in text.splitlines()]
    assert all(name in "".join(column) for name in NAMES)
    for heading in ("done", "speed", "left", "loss", "in-context", "|w|", "|g|"):
        assert heading in text  # as a column, or in the line below
    assert "…" not in text
    assert ("a wider terminal shows" in text) == (width < 200)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 80, 200])
def test_of_more_runs_than_a_screen_holds_those_at_work_are_shown(tmp_path, width):
    from rich.console import Console

    for seed in range(40):
        write(
            tmp_path / f"a_rather_long_name_of_a_run_seed{seed:02d}", {"status": "complete"}, ROWS
        )
    write(tmp_path / "z_at_work", {"status": "running"}, ROWS, pid=os.getpid())
    console = Console(width=width, height=12, file=io.StringIO(), color_system=None)
    console.print(table(look(tmp_path), *console.size))
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 12
    assert any(line.startswith("z_at_work") for line in lines)
    shown = sum("complete" in line for line in lines if "more:" not in line)
    assert f"and {40 - shown} more: {40 - shown} complete" in " ".join(lines)


def test_a_pipe_gets_every_name_on_one_line(sweep, capsys):
    assert script.main([str(sweep)]) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:5] == ["run", "status", "done", "speed", "left"]
    assert [line.split()[0] for line in lines] == NAMES
    assert all(line.split()[1] == "running" for line in lines)
