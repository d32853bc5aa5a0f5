"""The sweep's grid: names that identify a run, class counts, and values refused as a whole."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_port.config.schema import IclConfig
from pytorch_port.sweep.grid import (
    PRESETS,
    Grid,
    found_in,
    plan_runs,
    run_name,
    stored,
    weight_decay_tag,
)
from trainrig.config import apply_overrides, to_dict

BASE = apply_overrides(IclConfig(), {"optimizer.name": "adamw"})


def grid(**values):
    return Grid(**({"class_counts": (100,), "weight_decays": (0.0,), "seeds": (42,)} | values))


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
        assert run.config.seed == 42
    assert [run.config.optimizer.weight_decay for run in runs] == [0.0, 0.1, 0.0, 0.1]


def test_a_name_says_what_differs_from_the_file():
    modes = ("decoupled", "sum_norms")
    runs = plan_runs(BASE, grid(seeds=(0, 42), l2_modes=modes))
    assert {run.name for run in runs} == {
        "class100_wd0_seed0", "class100_wd0_seed0_sum_norms",
        "class100_wd0", "class100_wd0_sum_norms",
    }  # fmt: skip
    assert run_name(5, 0.5) == "class5_wd0p5"
    flagged = apply_overrides(BASE, {"seed": 7})
    (run,) = plan_runs(flagged, grid(seeds=(7,)), unnamed=BASE)
    assert run.name == "class100_wd0_seed7"


axes = st.fixed_dictionaries(
    {
        "class_counts": st.lists(st.integers(21, 1623), min_size=1, max_size=2, unique=True),
        "weight_decays": st.lists(st.floats(0, 100), min_size=1, max_size=2, unique=True),
        "seeds": st.lists(st.integers(0, 2**62), min_size=1, max_size=2, unique=True),
        "l2_modes": st.lists(
            st.sampled_from(("decoupled", "sum_squares", "sum_norms")), min_size=1, unique=True
        ),
    }
)


@settings(deadline=None, max_examples=50)
@given(axes, axes)
def test_runs_of_two_grids_share_a_name_exactly_if_they_are_equal(one, two):
    grids = [Grid(**{key: tuple(values) for key, values in axis.items()}) for axis in (one, two)]
    runs = [run for each in grids for run in plan_runs(BASE, each)]
    by_name = {run.name: run.config for run in runs}
    by_config = {run.config.seed: {} for run in runs}
    for run in runs:
        assert by_name[run.name] == run.config  # never two configurations in one folder
        names = by_config[run.config.seed].setdefault(str(to_dict(run.config)), set())
        names.add(run.name)
        assert len(names) == 1  # nor two folders for one configuration


def test_a_run_is_found_by_its_configuration_whatever_its_name(tmp_path):
    old, new = plan_runs(BASE, grid(seeds=(0, 1)))
    identity = {**stored(old.config), "device": "cpu"}
    identity["training"]["engine"] = "eager"  # what auto stood for
    (tmp_path / "renamed").mkdir()
    file = tmp_path / "renamed/config.json"
    file.write_text(json.dumps(identity))
    assert [run.name for run in found_in(tmp_path, [old, new])] == ["renamed", new.name]
    file.write_text(json.dumps({**identity, "branch": {"weights": "0"}}))  # begun elsewhere
    assert [run.name for run in found_in(tmp_path, [old, new])] == [old.name, new.name]


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
