"""The published experiments through their script, at toy size: runs, tables, figures, slices."""

from __future__ import annotations

import csv

import pytest
import torch

import pytorch_port.data.inputs
from pytorch_port.figures import reproduction
from trainrig.data.image_bank import ImageBank
from trainrig.runs import read_status

TOY = """
    --preset quick --max-steps 4 --device cpu --no-track --jobs 1 --source synthetic
    --set training.batch_size=4 --set training.eval_interval=2 --set evaluation.batches=1
    --set evaluation.batch_size=8 --set embedding.emb_dim=16 --set rnn.hidden_size=16
    --set transformer.num_layers=1 --set rnn.num_layers=1
"""


@pytest.fixture
def toy(call_script, tmp_path, monkeypatch):
    """Run the script with random images, two Zipf exponents and the given flags."""
    images = torch.randint(0, 256, (1623, 9, 28, 28), dtype=torch.uint8)
    bank = ImageBank(
        images=images,
        class_ids=torch.arange(1623),
        source="synthetic",
        synthetic=True,
        sha256="",
        order="drawing",
    )
    monkeypatch.setattr(pytorch_port.data.inputs, "load_images", lambda *_, **__: bank)
    conditions = [c for c in reproduction.CONDITIONS if c.zipf_exponent in (0.0, 1.0)]
    monkeypatch.setattr(reproduction, "CONDITIONS", tuple(conditions))
    for cached in (pytorch_port.data.inputs._bank, pytorch_port.data.inputs._prepared):
        cached.cache_clear()
    yield lambda *flags: call_script(
        "reproduce_published", [*TOY.split(), "--output-dir", tmp_path, *flags]
    )
    for cached in (pytorch_port.data.inputs._bank, pytorch_port.data.inputs._prepared):
        cached.cache_clear()


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_slices_share_a_plan_and_any_draws_what_is_there(toy, tmp_path):
    ended = toy("--figures", "7", "6", "--slice", "1/2")
    assert ended.code == 0, ended.err
    plan = table(tmp_path / "plan.csv")
    assert [row["status"] for row in plan] == ["complete", "new", "complete", "new", "complete"]
    assert (tmp_path / "figure6.png").exists()
    assert toy("--figures", "7", "6", "--slice", "2/2").code == 0
    assert {row["status"] for row in table(tmp_path / "plan.csv")} == {"complete"}
    curves = table(tmp_path / "curves.csv")
    assert [row["step"] for row in curves if row["label"] == "lstm"] == ["2", "4"]
    rows = table(tmp_path / "comparison.csv")
    assert {row["comparable"] for row in rows} == {"no"}
    assert {row["our_step"] for row in rows} == {"4"}
    published = {(r["figure"], r["label"], r["quantity"]): r["published"] for r in rows}
    assert published["6", "1", "common"] == "0.94"
    assert len(rows) == 2 * 3 + 3
    assert all(0 <= float(row["ours_mean"]) <= 1 for row in rows)
    assert (tmp_path / "figure7.pdf").stat().st_size > 5000


def test_a_second_call_keeps_what_the_first_one_left(toy, tmp_path):
    assert toy("--figures", "7", "--slice", "1/3").code == 0  # one run, of seed 0
    first = table(tmp_path / "curves.csv")
    ended = toy("--figures", "7", "--slice", "1/3", "--seeds", "1")
    assert ended.code == 0, ended.err
    plan = table(tmp_path / "plan.csv")
    assert {(row["seed"], row["in_grid"]) for row in plan} == {("0", "0"), ("1", "1")}
    curves = table(tmp_path / "curves.csv")
    assert {row["seed"] for row in curves} == {"0", "1"}
    assert [row for row in curves if row["seed"] == "0"] == first
    assert {row["n_seeds"] for row in table(tmp_path / "comparison.csv")} >= {"2"}
    longer = toy("--figures", "7", "--slice", "1/3", "--seeds", "2", "--max-steps", "6")
    assert longer.code == 0, longer.err
    left = {row["seed"]: row["differs"] for row in table(tmp_path / "plan.csv")}
    assert left == {"0": "training_steps: 6 -> 4", "1": "training_steps: 6 -> 4", "2": ""}
    assert "not shown: training_steps: 6 -> 4" in longer.err


def test_a_shared_run_is_trained_once_and_a_plan_can_be_listed(toy, tmp_path):
    ended = toy("--figures", "2", "3", "7", "--list")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "8 runs of 4 steps; 8 in this slice"
    assert ended.out.count("bursty0.9_classes1600_zipf0_transformer_seed0") == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--figures", "5"], "--figures 5: unknown; accepted: 2, 3, 6, 7"),
        (["--slice", "3/2"], "--slice 3/2: give I/N with 1 <= I <= N"),
        (["--seeds", "1", "1"], "--seeds 1 1: give different values"),
        (["--draw-only"], "no evaluation of any planned run; train some first"),
    ],
)
def test_bad_flags_are_answered_in_one_line(toy, tmp_path, flags, message):
    ended = toy(*flags)
    assert ended.code == 1
    assert message in ended.err
    assert len(ended.error_lines) == 1
    assert read_status(tmp_path)["status"] == "new"
