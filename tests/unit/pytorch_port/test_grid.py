"""The sweep's grid: names that identify a run, class counts, and values refused as a whole."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_port.config.schema import IclConfig
from pytorch_port.sweep.grid import PRESETS, Grid, plan_runs, run_name, weight_decay_tag
from trainrig.config import apply_overrides

BASE = apply_overrides(IclConfig(), {"optimizer.name": "adamw"})


def grid(**values):
    return Grid(**({"class_counts": (100,), "weight_decays": (0.0,), "seeds": (1,)} | values))


@pytest.mark.parametrize(
    ("decay", "tag"),
    [(0, "0"), (3e-4, "3e-04"), (1e-3, "1e-03"), (3e-3, "3e-03"), (1e-2, "0p01"), (1, "1p0")],
)
def test_tags_are_the_published_ones(decay, tag):
    assert weight_decay_tag(decay) == tag


@settings(deadline=None)  # a busy machine is no counterexample
@given(st.floats(min_value=0, max_value=1e6), st.floats(min_value=0, max_value=1e6))
def test_different_decays_never_share_a_folder(one, two):
    tags = weight_decay_tag(one), weight_decay_tag(two)
    assert (tags[0] == tags[1]) == (one == two)
    assert not set(tags[0]) & set("/ .") or "e" in tags[0]


def test_names_and_configurations():
    runs = plan_runs(BASE, grid(class_counts=(100, 1600), weight_decays=(0.0, 0.1)))
    assert [run.name for run in runs] == [
        "class100_wd0", "class100_wd0p1", "class1600_wd0", "class1600_wd0p1"
    ]  # fmt: skip
    for run in runs:
        assert run.config.num_classes == run.class_count
        assert run.config.data.generator_config.n_rare_classes == run.class_count - 20
        assert run.config.seed == 1
    assert [run.config.optimizer.weight_decay for run in runs] == [0.0, 0.1, 0.0, 0.1]


def test_seed_and_mode_appear_where_they_vary():
    modes = ("decoupled", "sum_norms")
    runs = plan_runs(BASE, grid(seeds=(0, 7), l2_modes=modes))
    assert {run.name for run in runs} == {
        f"class100_wd0_seed{seed}_{mode}" for seed in (0, 7) for mode in modes
    }
    assert run_name(5, 0.5) == "class5_wd0p5"


def test_symbols_are_as_many_as_classes():
    base = apply_overrides(
        IclConfig(),
        {
            "data.example_type": "symbolic",
            "embedding.example_encoding": "embedding",
            "data.symbolic_config.dataset_size": 1623,
        },
    )
    (run,) = plan_runs(base, grid(class_counts=(50,)))
    assert run.config.data.symbolic_config.dataset_size == 50


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"class_counts": ()}, "--class_counts"),
        ({"class_counts": (100, 100)}, "different values"),
        ({"weight_decays": (-1e-9,)}, "--weight_decays -1e-09"),
        ({"weight_decays": (math.nan,)}, "--weight_decays nan"),
        ({"weight_decays": (math.inf,)}, "--weight_decays inf"),
        ({"weight_decays": (0.0, -0.0)}, "different values"),
    ],
)
def test_impossible_grids(values, text):
    with pytest.raises(ValueError, match="--") as caught:
        grid(**values)
    assert text in str(caught.value)


@pytest.mark.parametrize("count", [0, 19, 20, -5])
def test_class_counts_that_leave_no_rare_class(count):
    with pytest.raises(ValueError, match=f"--class_counts {count}: must exceed the 10 common"):
        plan_runs(BASE, grid(class_counts=(count,)))


def test_presets(repo_root):
    assert PRESETS["paper"]["class_counts"] == (100, 1600)
    assert PRESETS["paper"]["weight_decays"] == (0.0, 3e-4, 1e-3, 3e-3, 1e-2)
    assert PRESETS["paper"]["overrides"]["training_steps"] == 50_000
    extra = set(PRESETS["extended"]["weight_decays"]) - set(PRESETS["paper"]["weight_decays"])
    assert extra == {0.1, 0.3, 1.0}
    for preset in PRESETS.values():
        assert (repo_root / preset["config_path"]).is_file()
