"""Reports: runs read back, differences, means over seeds, describers, pages of nothing."""

from __future__ import annotations

import json

import pytest

from trainrig.report.content import Chart, Page, Picture, Section, Series, Table, Tile
from trainrig.report.describers import find_runs
from trainrig.report.page import MAX_POINTS, write_page
from trainrig.report.records import RunRecord, read_run
from trainrig.report.runs import (
    choose_metrics,
    differing_keys,
    mean_series,
    metric_chart,
    setting_names,
    short_names,
)
from trainrig.report.write import write_report


@pytest.fixture
def run(tmp_path):
    """Return a function that writes a run directory and returns it."""

    def write(name, config, rows=(), status=None):
        path = tmp_path / "runs" / name
        (path / "logs").mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(config))
        (path / "environment.json").write_text(json.dumps({"python": "3.11"}))
        if status:
            (path / "status.json").write_text(json.dumps(status))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (path / "logs/metrics.jsonl").write_text(text + '{"step": 99, "spl')  # still being written
        return path

    return write


def test_a_run_at_work_is_read_without_its_unfinished_line(run):
    rows = [{"step": 1, "split": "train", "loss": 3.0}, {"step": 2, "split": "train", "loss": 2.0}]
    record = read_run(run("a", {"lr": 0.1}, rows, {"status": "running", "step": 0}))
    assert (record.status, record.step, record.value("train", "loss")) == ("stopped", 2, 2.0)
    assert record.value("train", "accuracy") is None


def test_a_damaged_line_is_named(run):
    path = run("a", {}, [])
    (path / "logs/metrics.jsonl").write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not valid JSON"):
        read_run(path)


@pytest.mark.parametrize("line", ["[1]", "3", "null", '{"step": "a", "loss": 1.0}'])
def test_a_line_that_is_no_row_is_named(run, line):
    path = run("a", {}, [])
    (path / "logs/metrics.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: .* is no row with a step's number"):
        read_run(path)


def test_runs_are_found_below_and_named_by_their_place(run, tmp_path):
    for name in ("b/two", "a/one"):
        run(name, {})
    (tmp_path / "runs/a/one/checkpoints/x").mkdir(parents=True)
    assert [record.name for record in find_runs(tmp_path / "runs")] == ["a/one", "b/two"]
    assert [record.name for record in find_runs(tmp_path / "runs/a/one")] == ["one"]


def test_differences_leave_out_what_is_equal_and_what_is_hidden():
    runs = [
        RunRecord(path=None, name=str(lr), config={"o": {"lr": lr}, "seed": seed, "n": 1, "dir": d})
        for lr, seed, d in ((0.1, 0, "x"), (0.2, 1, "y"))
    ]
    varying = differing_keys(runs, hidden=("dir",))
    assert varying == {"o.lr": [0.1, 0.2], "seed": [0, 1]}
    assert setting_names(runs, varying, short_names(list(varying))) == ["lr 0.1", "lr 0.2"]


def test_settings_that_differ_in_a_fourth_key_are_no_seeds_of_each_other():
    runs = [
        RunRecord(
            path=None,
            name=str(d),
            config={"a": a, "b": a, "c": a, "d": d, "execution": {"seed": d}},
            rows=({"step": 1, "split": "val", "accuracy": 0.5},),
            final={"val": {"accuracy": 0.5}},
        )
        for a, d in ((0, 1), (0, 2), (3, 4))
    ]
    (metric,) = choose_metrics(runs)
    chart = metric_chart(metric, runs, varying := differing_keys(runs), short_names(list(varying)))
    assert [series.name for series in chart.series] == [
        "a 0, b 0, c 0, d 1",
        "a 0, b 0, c 0, d 2",
        "a 3, b 3, c 3, d 4",
    ]


def test_seeds_become_mean_and_band_and_settings_stay_apart():
    runs = [
        RunRecord(
            path=None,
            name=f"{lr}-{seed}",
            config={"lr": lr, "seed": seed},
            rows=({"step": 1, "split": "val", "accuracy": value},),
            final={"val": {"accuracy": value}},
        )
        for lr, seed, value in ((0.1, 0, 0.4), (0.1, 1, 0.6), (0.2, 0, 0.9))
    ]
    (metric,) = choose_metrics(runs)
    chart = metric_chart(metric, runs, varying := differing_keys(runs), short_names(list(varying)))
    means = [series for series in chart.series if not series.thin]
    assert [series.name for series in means] == ["lr 0.1 (mean of 2)", "lr 0.2"]
    assert means[0].y == [pytest.approx(50.0)]
    sd = 200**0.5  # of 40 and 60
    assert (means[0].low[0], means[0].high[0]) == pytest.approx((50 - sd, 50 + sd))
    assert [series.y for series in chart.series if series.thin] == [[40.0], [60.0], [90.0]]


def test_a_mean_keeps_the_steps_that_all_runs_have():
    series = mean_series("m", [([1, 2, 3], [1.0, 2.0, None]), ([2, 3], [4.0, 5.0])], 0)
    assert (list(series.x), list(series.y)) == ([2], [3.0])


def test_a_page_keeps_ends_of_long_lines_and_escapes_what_it_shows(tmp_path):
    xs = list(range(10 * MAX_POINTS + 7))
    chart = Chart("c</script><b>", [Series("long", xs, [float(x) for x in xs])])
    table = Table([{"name": "<i>", "value": 1.5}])
    page = Page(title="a<b", tiles=[Tile("t", "1")], sections=[Section("s", [chart, table])])
    text = write_page(tmp_path / "p.html", page).read_text()
    data = json.loads(text.partition('id="charts">')[2].partition("</script>")[0])
    series = data[0][0]["series"][0]
    assert len(series["x"]) <= MAX_POINTS + 1
    assert (series["x"][0], series["x"][-1]) == (0, xs[-1])
    assert "<b>" not in text.partition("<body>")[2].partition("<script")[0]
    assert "<i>" not in text


def test_pictures_too_many_become_links(tmp_path, monkeypatch):
    monkeypatch.setattr("trainrig.report.page.MAX_PICTURE_BYTES", 10)
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"12345678")
    pictures = [Picture(tmp_path / f"{name}.png") for name in ("a", "b")]
    page = Page(title="t", sections=[Section("s", pictures)])
    text = write_page(tmp_path / "p.html", page).read_text()
    assert text.count("data:image/png") == 1
    assert 'href="b.png"' in text


def test_any_run_is_reported_by_what_its_files_say(run):
    rows = [{"step": 5, "split": "test", "accuracy": 0.25}]
    path = run("mine", {"lr": 0.125, "deep": {"er": [1]}}, rows, {"status": "complete"})
    text = write_report(path).read_text()
    for shown in ("25.0 %", "lr: 0.125", "deep.er: [1]", "3.11"):
        assert shown in text, shown


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run, sweep, comparison"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="no such folder"):
        write_report(tmp_path / "absent")
