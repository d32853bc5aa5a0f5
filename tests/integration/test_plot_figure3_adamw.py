"""analysis/plot_figure3_adamw.py on cached tables: files, overlays, errors, no torch."""

from __future__ import annotations

import subprocess
import sys
import time

import plot_figure3_adamw as script
import pytest

from pytorch_port.sweep.figure3_tables import (
    METRICS_REQUIRED,
    read_metrics,
    write_curves,
    write_metrics,
)


def _row(count, decay, backend="torch"):
    values = [count, count - 20, 10, 10, decay, 400, 0.4, 0.9, 1.0, 1.0]
    row = dict(zip(METRICS_REQUIRED, values, strict=True))
    return row | {"accuracy_closed_holdout": 0.6, "backend": backend, "source": "synthetic"}


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "sweep" / "archive"
    rows = [_row(count, decay) for count in (100, 1600) for decay in (0.0, 1.0)]
    write_metrics(rows, folder / "figure3_adamw_metrics.csv")
    curve = {"class_count": 100, "weight_decay": 0.0, "backend": "torch", "l2_mode": "decoupled"}
    curve |= {"seed": 0, "step": 100, "accuracy_closed": 0.5, "accuracy_query": 0.5, "loss": 1.0}
    write_curves(
        [curve | {"split": split} for split in ("holdout", "no_support")],
        folder / "figure3_adamw_curves.csv",
    )
    return folder


def test_draws_beside_the_table_and_leaves_it_alone(archive, capsys):
    table = archive / "figure3_adamw_metrics.csv"
    before = table.read_bytes()
    assert script.main(["--metrics_csv", str(table)]) == 0
    names = {path.name for path in archive.iterdir()}
    assert {"figure3_adamw.png", "figure3_adamw.pdf", "figure3_adamw_curves.png"} <= names
    assert table.read_bytes() == before
    assert str(archive / "figure3_adamw.png") in capsys.readouterr().out


def test_mixes_backends_and_draws_overlays(archive, tmp_path):
    jax = tmp_path / "jax.csv"
    write_metrics([_row(100, 0.0, "jax")], jax)
    output = tmp_path / "out"
    flags = ["--metrics-csv", str(archive / "figure3_adamw_metrics.csv"), "--jax-metrics-csv"]
    overlay = ["--overlay", "published", str(archive)]
    assert script.main([*flags, str(jax), "--output-dir", str(output), *overlay]) == 0
    assert (output / "figure3_adamw.png").stat().st_size > 10_000
    assert (output / "figure3_adamw_metrics.csv").read_text().count("\n") == 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--metrics_csv", "absent.csv"], "absent.csv: no such table"),
        (["--runs_csv", "absent.csv"], "absent.csv: no such table"),
        (["--metrics_csv", "{table}", "{other}"], "with another setting; one row each"),
        (["--metrics_csv", "{table}", "--overlay", "publshed"], "publshed: no such table"),
        (["--metrics_csv", "{table}", "--overlay", "{empty}"], "in this folder"),
    ],
)
def test_faults_are_one_line_and_write_nothing(archive, tmp_path, capsys, flags, message):
    (tmp_path / "empty").mkdir()
    places = {"table": archive / "figure3_adamw_metrics.csv", "empty": tmp_path / "empty"}
    places["other"] = tmp_path / "other.csv"
    rows = read_metrics(places["table"])
    write_metrics([row | {"global_step": row["global_step"] + 1} for row in rows], places["other"])
    output = tmp_path / "out"
    argv = [*(flag.format(**places) for flag in flags), "--output_dir", str(output)]
    assert script.main(argv) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [([], "nothing to draw"), (["--metric_csv", "x"], "did you mean '--metrics_csv'")],
)
def test_bad_flags_end_with_status_2(capsys, flags, message):
    with pytest.raises(SystemExit, match="2"):
        script.main(flags)
    assert message in capsys.readouterr().err


def test_neither_help_nor_cached_tables_import_torch(archive):
    table = archive / "figure3_adamw_metrics.csv"
    for flags in (["--help"], ["--metrics_csv", str(table)]):
        code = (
            f"import sys; sys.argv[1:] = {flags!r}; sys.path.insert(0, {script_folder()!r})\n"
            "import plot_figure3_adamw as script\n"
            "try:\n    script.main()\nexcept SystemExit:\n    pass\n"
            "assert 'torch' not in sys.modules, 'torch was imported'\n"
        )
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert flags != ["--help"] or time.perf_counter() - start < 5  # 0.2 s on a free machine


def script_folder():
    from pathlib import Path

    return str(Path(script.__file__).parent)
