"""What the docs promise of the quick preset, held against the archived seeds of both image sets."""

from __future__ import annotations

import pytest

from pytorch_port.figures.figure3_sources import METRICS_CSV
from pytorch_port.figures.headlines import headline
from pytorch_port.sweep.figure3_tables import read_metrics
from pytorch_port.sweep.flags import trace_file
from pytorch_port.sweep.grid import PRESETS


@pytest.fixture(params=[".", "omniglot"])
def archived(request, repo_root):
    """Return ``reached(classes, λ, column)``: seed → headline of the archived runs."""
    rows = read_metrics(repo_root / "runs/torch_adamw_sweep/archive" / request.param / METRICS_CSV)

    def reached(classes, decay, column):
        own = [r for r in rows if (r["class_count"], r["weight_decay"]) == (classes, decay)]
        return {row["seed"]: headline(row, column)[0] for row in own}

    return reached


def test_many_classes_are_read_from_the_context(archived):
    found = archived(1600, 0.0, "accuracy_closed_holdout")
    assert set(found) == {0, 1, 2, 3, 4}
    assert min(found.values()) >= 0.70


def test_few_classes_are_remembered(archived):
    found = archived(100, 0.0, "accuracy_no_support")
    assert set(found) == {0, 1, 2, 3, 4}
    assert min(found.values()) >= 0.95


def test_strong_decay_ends_reading_and_helps_remembering(archived):
    for column, sign in (("accuracy_closed_holdout", -1), ("accuracy_no_support", 1)):
        without, strong = (archived(1600, decay, column) for decay in (0.0, 1.0))
        assert len(strong) >= 3
        assert all(sign * (strong[seed] - without[seed]) > 0 for seed in strong)
    assert max(archived(1600, 1.0, "accuracy_closed_holdout").values()) < 0.55  # chance: 0.5


def test_the_archive_is_of_the_preset(repo_root):
    preset = PRESETS["quick"]
    config = trace_file(repo_root / preset["config_path"]).config
    rows = read_metrics(repo_root / "runs/torch_adamw_sweep/archive" / METRICS_CSV)
    assert {row["global_step"] for row in rows} == {config.training_steps}
