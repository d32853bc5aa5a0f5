"""Figure 3a and 3b: tables and figure from made-up evaluations."""

from __future__ import annotations

import json

import pytest

from pytorch_port.figures import figure3a


@pytest.fixture
def rows():
    return [
        {
            "class_count": count,
            "step": step,
            "accuracy_closed": 0.5 + 0.1 * (count > 100) + step / 10_000,
            "accuracy_interim": 0.0,
            "accuracy_query": 0.4,
            "loss": 2.0,
            "loss_interim": 0.0,
            "loss_query": 2.0,
            "progress_path": f"class{count}/logs/progress.txt",
            "source": "synthetic",
        }
        for count in (1600, 100)
        for step in (2000, 1000)
    ]


def test_writes_tables_and_figure(rows, tmp_path):
    files = figure3a.write_figure3a(rows, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figure3a_torch.pdf",
        "figure3a_torch.png",
        "figure3a_torch_metrics.csv",
        "figure3a_torch_timeseries.csv",
    ]
    assert files.metrics.read_text().splitlines()[0] == (
        "class_count,step,accuracy_closed,accuracy_closed_last3,accuracy_closed_last3_se,"
        "accuracy_interim,accuracy_query,accuracy_query_last3,accuracy_query_last3_se,loss,"
        "loss_interim,loss_query,source,progress_path"
    )
    series = figure3a.read_rows(files.timeseries)
    expected = figure3a.with_headlines(rows)
    assert series == sorted(expected, key=lambda row: (row["class_count"], row["step"]))
    last = figure3a.read_rows(files.metrics)
    assert [(row["class_count"], row["step"]) for row in last] == [(100, 2000), (1600, 2000)]


def test_panels_show_their_regime(rows):
    (ax,) = figure3a.plot_figure3a(rows, "a").axes
    assert ax.get_title(loc="left") == "in-context: held-out classes"
    assert any(text.get_text() == "chance 0.5" for text in ax.texts)
    figure = figure3a.plot_figure3a(rows, "b")
    assert figure.axes[0].get_title(loc="left") == "in-weights: trained classes"
    assert "SYNTHETIC GLYPHS" in figure._suptitle.get_text()


def test_panel_b_has_files_of_its_own(rows, tmp_path):
    files = figure3a.write_figure3a(rows, tmp_path, "b", plot=False)
    assert files.figure.name == "figure3b_torch.png"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "figure3b_torch_metrics.csv",
        "figure3b_torch_timeseries.csv",
    ]


def test_evaluations_come_from_the_runs_log(tmp_path):
    logs = tmp_path / "class100" / "logs"
    logs.mkdir(parents=True)
    records = [
        {"step": 5, "split": "train", "loss": 1.0},
        {"step": 5, "split": "holdout", "loss": None, "accuracy_closed": 0.5},
        {"step": 5, "split": "no_support", "loss": 1.5},
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (logs / "metrics.jsonl").write_text(text + '{"step": 6, "spl')
    (row,) = figure3a.evaluations_of_run(100, logs, "a", relative_to=tmp_path, facts={"seed": 3})
    assert row == {
        "class_count": 100,
        "seed": 3,
        "step": 5,
        "loss": None,
        "accuracy_closed": 0.5,
        "progress_path": "class100/logs/progress.txt",
    }


def test_faults_are_named(rows, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl: no such log"):
        figure3a.evaluations_of_run(100, tmp_path, "a", relative_to=tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{}\n{oops\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not valid JSON"):
        figure3a.evaluations_of_run(100, tmp_path, "a", relative_to=tmp_path)
    del rows[1]["loss_query"]
    with pytest.raises(ValueError, match="row 2 lacks loss_query"):
        figure3a.write_rows(rows, tmp_path / "t.csv")
    for empty in (figure3a.plot_figure3a, lambda none: figure3a.write_rows(none, tmp_path / "t")):
        with pytest.raises(ValueError, match="at least one is needed"):
            empty([])
