"""docs/file_formats.md names exactly the columns that the code writes, in their order."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from optimizer_quality import runs_table as cifar_runs_table
from optimizer_quality import sweep
from optimizer_quality.comparison import MEASURES
from ptycho_torch.study import archive, runs_table
from pytorch_port.figures import figure3a, reproduction_files
from pytorch_port.sweep import figure3_tables
from pytorch_port.train.rows import PROGRESS_COLUMNS
from trainrig.packs import PackPlan

WRITTEN = {
    "progress.txt": [PROGRESS_COLUMNS],
    "runs.csv": [figure3_tables.RUNS_COLUMNS],
    "figure3_adamw_metrics.csv": [figure3_tables.METRICS_REQUIRED, figure3_tables.METRICS_EXTRA],
    "figure3_adamw_curves.csv": [figure3_tables.CURVES_REQUIRED],
    "figure3a_torch_metrics.csv, figure3a_torch_timeseries.csv": [
        [*figure3a.FIRST_COLUMNS, *figure3a.METRIC_COLUMNS, *figure3a.LAST_COLUMNS]
    ],
    "plan.csv, curves.csv, finals.csv, comparison.csv": [
        reproduction_files.PLAN_COLUMNS,
        reproduction_files.CURVE_COLUMNS,
        reproduction_files.FINAL_COLUMNS,
        reproduction_files.COMPARISON_COLUMNS,
    ],
    "Optimizer quality: runs.csv": [cifar_runs_table.RUNS_COLUMNS],
    "Optimizer quality: summary.csv": [sweep.SUMMARY_COLUMNS],
    "Ptychography: runs.csv": [runs_table.RUNS_COLUMNS],
    "Optimizer quality: comparison": [measure.columns for measure in MEASURES.values()],
    "Ptychography: data of the evaluation's figures": [
        archive.RING_COLUMNS,
        archive.HALVES_COLUMNS,
        archive.TENTHS_COLUMNS,
    ],
}
KINDS = {int: "integer", float: "float", str: "word"}


@pytest.fixture(scope="module")
def sections(repo_root):
    text = (repo_root / "docs" / "file_formats.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section):
    """Return the tables of a section, each as [(column, type), ...]."""
    tables, inside = [], False
    for line in section.splitlines():
        found = re.match(r"\| `([^`]+)` \| ([^|]+) \|", line)
        if found:
            if not inside:
                tables.append([])
            tables[-1].append((found[1], found[2].strip()))
        inside = bool(found)
    return tables


@pytest.mark.parametrize("file", WRITTEN)
def test_documented_columns_are_the_written_ones(sections, file):
    assert [[name for name, _ in table] for table in documented(sections[file])] == [
        list(columns) for columns in WRITTEN[file]
    ]


@pytest.mark.parametrize("file", WRITTEN)
def test_documented_types_are_the_read_ones(sections, file):
    for table, columns in zip(documented(sections[file]), WRITTEN[file], strict=True):
        if file == "runs.csv":
            columns = figure3_tables.RUNS_REQUIRED | figure3_tables.RUNS_EXTRA
        if not isinstance(columns, dict):
            continue
        for name, kind in table:
            expected = KINDS[columns[name].kind]
            assert kind.split(",")[0] == expected or (expected == "word" and kind == "path")


def test_the_pack_plan_has_the_documented_keys(sections):
    (table,) = documented(sections["Pack plan of a sweep"])
    assert [name for name, _ in table] == [field.name for field in fields(PackPlan)]


def test_extra_metrics_are_listed_as_they_are_written():
    assert list(figure3_tables.METRICS_EXTRA) == sorted(figure3_tables.METRICS_EXTRA)
    assert list(figure3a.METRIC_COLUMNS) == sorted(figure3a.METRIC_COLUMNS)
