"""The page's one sentence: from the pairs, with their number and spread."""

from __future__ import annotations

import itertools

import pytest

from optimizer_quality.page import pair_rows, verdict


def run(optimizer, seed):
    return {"run": f"{optimizer}{seed}", "optimizer": optimizer, "seed": seed}


def pairs_of(runs, value):
    """Every pair of runs, its disagreement ``value(a, b)``."""
    return [
        {
            "run_a": a["run"],
            "run_b": b["run"],
            "between": "seeds" if a["optimizer"] == b["optimizer"] else "optimizers",
            "same_seed": int(a["seed"] == b["seed"]),
            "disagreement": value(a, b),
        }
        for a, b in itertools.combinations(runs, 2)
    ]


def far_apart(a, b):
    if a["seed"] == b["seed"]:
        return 0.90
    return 0.11 if a["optimizer"] == b["optimizer"] else 0.17 + 0.01 * (a["seed"] - b["seed"])


@pytest.fixture
def tables():
    runs = [run(optimizer, seed) for optimizer in ("adamw", "sgd") for seed in range(3)]
    return {"disagreement": pairs_of(runs, far_apart), "accuracy": runs}


def test_pairs_of_one_seed_do_not_count_between_optimizers(tables):
    sentence = verdict(tables)
    assert "different classes for 17.0 ± 1.5 % of the test images (6 pairs)" in sentence
    assert "different seeds for 11.0 ± 0.0 % of the test images (6 pairs)" in sentence
    assert "by +6.0 points." in sentence


def test_the_unit_of_the_test_is_the_run_not_the_pair(tables):
    """Six pairs a side, far apart, would pass any test of pairs; six runs cannot."""
    sentence = verdict(tables)
    assert " Permutation test over the 6 runs (all, 20 relabellings): p = 0.1," in sentence
    assert sentence.endswith(", so no difference is shown.")
    runs = [run(optimizer, seed) for optimizer in ("adamw", "sgd") for seed in range(4)]
    shown = verdict({"disagreement": pairs_of(runs, far_apart), "accuracy": runs})
    assert shown.endswith("over the 8 runs (all, 70 relabellings): p = 0.029.")


def test_few_seeds_are_named(tables):
    tables["accuracy"] = tables["accuracy"][:-1]
    assert verdict(tables).endswith("Fewer than 3 seeds (sgd 2): read no difference into it.")


def test_no_verdict_without_both_kinds_of_pairs(tables):
    tables["disagreement"] = [r for r in tables["disagreement"] if r["between"] != "seeds"]
    assert verdict(tables).startswith("No verdict")


def test_pairs_of_one_seed_have_a_row_of_their_own(tables):
    for row in tables["disagreement"]:
        row["kind"] = "sgd seeds" if row["between"] == "seeds" else "adamw / sgd"
    shown = {
        row["pair"]: (row["pairs"], row["runs"], row["disagreement"]) for row in pair_rows(tables)
    }
    assert shown == {
        "sgd seeds": ("6", "6", "11.00 ± 0.00 %"),
        "adamw / sgd": ("6", "6", "17.00 ± 1.55 %"),
        "adamw / sgd, same seed": ("3", "6", "90.00 ± 0.00 %"),
    }
