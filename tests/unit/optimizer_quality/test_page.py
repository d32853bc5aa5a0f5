"""The page's one sentence: from the pairs, with their number and spread."""

from __future__ import annotations

import pytest

from optimizer_quality.page import pair_rows, verdict


def pair(between, value, same_seed=0):
    return {"between": between, "disagreement": value, "same_seed": same_seed}


@pytest.fixture
def tables():
    return {
        "disagreement": [
            pair("seeds", 0.10),
            pair("seeds", 0.12),
            pair("optimizers", 0.15),
            pair("optimizers", 0.19),
            pair("optimizers", 0.90, same_seed=1),
        ],
        "accuracy": [{"optimizer": o, "seed": s} for o in ("adamw", "sgd") for s in range(3)],
    }


def test_pairs_of_one_seed_do_not_count_between_optimizers(tables):
    sentence = verdict(tables)
    assert "different classes for 17.0 ± 2.8 % of the test images (2 pairs)" in sentence
    assert "different seeds for 11.0 ± 1.4 % of the test images (2 pairs)" in sentence
    assert sentence.endswith("by +6.0 points.")


def test_few_seeds_are_named(tables):
    tables["accuracy"] = tables["accuracy"][:-1]
    assert verdict(tables).endswith("Fewer than 3 seeds (sgd 2): read no difference into it.")


def test_no_verdict_without_both_kinds_of_pairs(tables):
    tables["disagreement"] = tables["disagreement"][2:]
    assert verdict(tables).startswith("No verdict")


def test_pairs_of_one_seed_have_a_row_of_their_own(tables):
    for row in tables["disagreement"]:
        row["kind"] = "sgd seeds" if row["between"] == "seeds" else "adamw / sgd"
    shown = {row["pair"]: (row["pairs"], row["disagreement"]) for row in pair_rows(tables)}
    assert shown == {
        "sgd seeds": ("2", "11.00 ± 1.41 %"),
        "adamw / sgd": ("2", "17.00 ± 2.83 %"),
        "adamw / sgd, same seed": ("1", "90.00 %"),
    }
