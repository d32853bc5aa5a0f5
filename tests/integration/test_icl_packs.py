"""Runs trained as one program write what they would write alone, and equal it within rounding.

Bounds: weights 1e-5 relative to a tensor's norm, metrics 1e-4. The bias of the attention keys is
left out: its gradient is zero but for rounding, which Adam turns into steps, and it changes no
output.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

import pytorch_port.sweep.pack
from pytorch_port.data import inputs
from pytorch_port.train.evaluation import evaluate_run
from trainrig.checkpoint import latest_checkpoint, load_checkpoint
from trainrig.pack_recorder import PackRecorder
from trainrig.runs import LATEST, read_status

SYMBOLIC = """
def get_config():
    return {
        "data": {
            "example_type": "symbolic", "symbolic_config": {"dataset_size": 1609},
            "generator_config": {"n_common_classes": 2, "n_holdout_classes": 4},
        },
        "embedding": {"example_encoding": "embedding", "emb_dim": 16},
        "transformer": {"num_layers": 2, "num_heads": 2},
        "optimizer": {"name": "adamw", "max_lr": 1e-3, "warmup_steps": 10},
        "training": {
            "batch_size": 4, "log_interval": 3, "eval_interval": 6, "save_interval": 4,
        },
        "evaluation": {"batches": 1, "batch_size": 4},
    }
"""
IMAGES = """
def get_config():
    return {
        "data": {
            "source": "synthetic",
            "generator_config": {"n_common_classes": 2, "n_holdout_classes": 4},
        },
        "preproc": {"downsample": True},
        "embedding": {"example_encoding": "resnet", "emb_dim": 16},
        "transformer": {"num_layers": 1, "num_heads": 2},
        "optimizer": {"name": "adamw", "max_lr": 1e-3, "warmup_steps": 2},
        "training": {
            "batch_size": 2, "log_interval": 2, "eval_interval": 4, "save_interval": 4,
        },
        "evaluation": {"batches": 1, "batch_size": 2},
    }
"""


@pytest.fixture
def sweep(call_script, tmp_path, monkeypatch):
    """Return a function: folder, flags -> the sweep script's end."""
    monkeypatch.setenv("TRAINRIG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("pytorch_port.figures.figure3_files.draw_runs", lambda *_, **__: [])

    def call(folder: Path, *flags: str, config: str = SYMBOLIC):
        path = tmp_path / "toy.py"
        path.write_text(config)
        run = f"--config_path {path} --base_output_dir {folder} --device cpu --no-track --jobs 1"
        steps = f"--training_steps {4 if config == IMAGES else 12}"
        return call_script("run_adamw_sweep_torch", [*words(run), *words(steps), *flags])

    return call


def words(text: str) -> list[str]:
    return text.split()


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text().splitlines()]


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("class*"))


def assert_equal_within_rounding(packed: Path, alone: Path, weights: float = 1e-5) -> None:
    """Everything two run directories hold: the same files, and numbers within the bounds."""
    files = [sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (packed, alone)]
    assert files[0] == files[1]
    assert (packed / "config.json").read_bytes() == (alone / "config.json").read_bytes()
    for mine, theirs in zip(rows_of(packed), rows_of(alone), strict=True):
        assert list(mine) == list(theirs)
        for key, value in theirs.items():
            if isinstance(value, str):
                assert mine[key] == value
            else:
                assert mine[key] == pytest.approx(value, abs=1e-4, rel=1e-4), key
    mine, theirs = (latest_checkpoint(run / LATEST)[0] for run in (packed, alone))
    assert mine.step == theirs.step
    assert list(mine.weights) == list(theirs.weights)
    for name, value in theirs.weights.items():
        assert mine.weights[name].shape == value.shape
        if "key.bias" not in name:
            distance = (mine.weights[name] - value).double().norm()
            assert distance <= weights * max(value.double().norm(), 1e-3), name
    assert list(mine.state) == list(theirs.state)
    states = mine.state["optimizer"], theirs.state["optimizer"]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for one, other in zip(states[0]["state"].values(), states[1]["state"].values(), strict=True):
        assert {k: (v.shape, v.dtype) for k, v in one.items()} == {
            k: (v.shape, v.dtype) for k, v in other.items()
        }
        assert torch.equal(one["step"], other["step"])


GRID = words("--class_counts 12 17 --weight_decays 0.1 --seeds 0 1 --l2_modes")
GRID += ["decoupled", "sum_norms", "sum_squares"]


def test_a_packed_sweep_equals_the_runs_alone(sweep, tmp_path):
    """Different class counts, seeds and modes in one pack; one class count is padded."""
    packed, alone = tmp_path / "packed", tmp_path / "alone"
    ended = sweep(packed, *GRID, "--pack", "12")
    assert ended.code == 0, ended.err
    assert sweep(alone, *GRID).code == 0
    assert len(names_of(packed)) == 12
    plan = json.loads((packed / "manifest.json").read_text())
    assert sorted(plan["packs"][0]) == names_of(packed)
    assert not (alone / "manifest.json").exists()
    for name in names_of(alone):
        assert_equal_within_rounding(packed / name, alone / name)
        environment = json.loads((packed / name / "environment.json").read_text())
        assert environment["pack"] == plan["packs"][0]
    with (packed / "runs.csv").open() as one, (alone / "runs.csv").open() as other:
        assert list(csv.DictReader(one)) == list(csv.DictReader(other))
    row = evaluate_run(packed / name, device="cpu")
    assert row["accuracy_holdout"] == rows_of(packed / name)[-2]["accuracy_query"]


@pytest.fixture
def float64():
    """Compute in double precision, with images that no other test shares."""
    inputs._prepared.cache_clear()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
    inputs._prepared.cache_clear()


def test_image_runs_in_a_pack_equal_the_runs_alone(sweep, float64, tmp_path):
    """BatchNorm's averages too; all runs of a pack share their sequences, then none do.

    In float64: some gradients of the encoder are nothing but rounding (a bias in front of another
    norm), and Adam turns their signs into steps, so float32 runs cannot be told from wrong ones.
    """
    alone = tmp_path / "alone"
    flags = words("--class_counts 12 14 --weight_decays 0 0.1")
    assert sweep(alone, *flags, config=IMAGES).code == 0
    for size, folder in (("2", "shared"), ("4", "own")):
        ended = sweep(tmp_path / folder, *flags, "--pack", size, config=IMAGES)
        assert ended.code == 0, ended.err
        for name in names_of(alone):
            assert read_status(tmp_path / folder / name)["status"] == "complete"
            assert_equal_within_rounding(tmp_path / folder / name, alone / name, 1e-7)


@pytest.mark.slow
def test_a_hundred_steps_of_the_full_model(sweep, tmp_path):
    """The reference's 12 layers in float32, packed over class counts, seeds and decays."""
    flags = words("--class_counts 30 40 --weight_decays 0 1e-2 --seeds 0 1")
    more = "--training_steps 100 --set transformer.num_layers=12 --set transformer.num_heads=8"
    more += " --set embedding.emb_dim=64 --set training.save_interval=100"
    more += " --set training.eval_interval=50 --set training.log_interval=10"
    more += " --set optimizer.max_lr=3e-4 --set optimizer.warmup_steps=4000"
    ended = sweep(tmp_path / "packed", *flags, *more.split(), "--pack", "8")
    assert ended.code == 0, ended.err
    assert sweep(tmp_path / "alone", *flags, *more.split()).code == 0
    for name in names_of(tmp_path / "alone"):
        assert_equal_within_rounding(tmp_path / "packed" / name, tmp_path / "alone" / name)


def test_a_diverged_run_is_frozen_and_reported_and_the_others_go_on(sweep, tmp_path):
    packed, alone = tmp_path / "packed", tmp_path / "alone"
    grid = words("--class_counts 12 --weight_decays 1e39 0 --l2_modes sum_squares --seeds 0 1")
    ended = sweep(packed, *grid, "--pack", "4")
    assert ended.code == 0, ended.err
    assert ended.out.count(": diverged ") == 2
    assert sweep(alone, *grid).code == 0
    for name in names_of(alone):
        expected, status = (read_status(folder / name) for folder in (alone, packed))
        assert (
            status["status"] == expected["status"] == ("diverged" if "e+39" in name else "complete")
        )
        assert status["step"] == expected["step"]
        assert status.get("message") == expected.get("message")
        if expected["status"] == "complete":
            assert_equal_within_rounding(packed / name, alone / name)
    again = sweep(packed, *grid, "--pack", "4")
    assert again.code == 0
    assert again.out.count("was finished before") == 4
    for folder, flags in ((packed, ["--pack", "4"]), (alone, [])):
        longer = sweep(folder, *grid, *flags, "--training_steps", "16")
        assert longer.code == 0, longer.err
    for name in names_of(alone):
        steps = [read_status(folder / name)["step"] for folder in (packed, alone)]
        assert steps[0] == steps[1]
        assert ("e+39" in name) == (steps[0] < 16)
    with (alone / "runs.csv").open() as file:
        assert [row["differs"] for row in csv.DictReader(file)] == [""] * 4


def test_going_on_alone_or_in_a_pack_must_be_forced_and_is_recorded(sweep, tmp_path, monkeypatch):
    folder, half = tmp_path / "out", ["--class_counts", "12", "--weight_decays", "0", "0.1"]
    real = PackRecorder._save

    def stop(pack, step, **options):
        real(pack, step, **options)
        if step == 8:
            raise OSError("stopped")

    monkeypatch.setattr(PackRecorder, "_save", stop)
    assert sweep(folder, *half, "--pack", "2").code == 1
    monkeypatch.setattr(PackRecorder, "_save", real)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    refused = sweep(folder, *half)
    assert refused.code == 1
    assert "was begun packed and would continue alone" in refused.err
    other = sweep(folder, *half, "--pack", "3")
    assert other.code == 1
    assert "has packs of up to 2 runs, not 3" in other.err
    part = sweep(folder, *half[:4], "--pack", "2")
    assert part.code == 1
    assert "class12_wd0p1 is in a pack with runs of this command" in part.err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    ended = sweep(folder, *half, "--force-engine-change")
    assert ended.code == 0, ended.err
    for name in names_of(folder):
        environment = json.loads((folder / name / "environment.json").read_text())
        assert environment["pack"] == []
        change = {"after_step": 8, "from": "packed", "to": "alone"}
        assert environment["pack_changes"] == [change]
        assert latest_checkpoint(folder / name / LATEST)[0].step == 12
    assert not (folder / "manifest.json").exists()


def test_a_finished_pack_becomes_longer_as_a_whole_and_not_alone(sweep, tmp_path):
    grown, whole = tmp_path / "grown", tmp_path / "whole"
    grid = words("--class_counts 12 --weight_decays 0 0.1")
    assert sweep(grown, *grid, "--pack", "2").code == 0
    longer = ["--training_steps", "16"]
    before = {p: p.read_bytes() for p in grown.rglob("*") if p.is_file()}
    refused = sweep(grown, *grid, *longer)
    assert refused.code == 1
    assert "was begun packed and would continue alone" in refused.err
    part = sweep(grown, *grid[:4], *longer, "--pack", "2")
    assert part.code == 1
    assert "class12_wd0p1 is in a pack with runs of this command" in part.err
    assert {p: p.read_bytes() for p in grown.rglob("*") if p.is_file()} == before
    assert sweep(grown, *grid, *longer, "--pack", "2").code == 0
    assert sweep(whole, *grid, *longer, "--pack", "2").code == 0
    for name in names_of(whole):
        ends = [latest_checkpoint(folder / name / LATEST)[0] for folder in (grown, whole)]
        assert ends[0].step == 16
        assert repr(ends[0].weights) == repr(ends[1].weights)


def test_a_pack_that_begins_with_the_state_of_a_run_continues_after_its_step(sweep, tmp_path):
    stem, twigs = tmp_path / "stem", tmp_path / "twigs"
    grid = words("--class_counts 12 --weight_decays 0 0.1")
    assert sweep(stem, *grid).code == 0
    begin = ["--set", f"init.run={stem}/class12_wd0@8", "--set", "init.state=true"]
    ended = sweep(twigs, *grid, *begin, "--pack", "2")
    assert ended.code == 0, ended.err
    for name in names_of(twigs):
        assert [row["step"] for row in rows_of(twigs / name)] == [9, 12, 12, 12]
    ours, theirs = (latest_checkpoint(f / "class12_wd0" / LATEST)[0] for f in (twigs, stem))
    for name, value in theirs.weights.items():
        if "key.bias" not in name:
            distance = (ours.weights[name] - value).norm()
            assert distance <= 1e-5 * max(float(value.norm()), 1e-3), name


def test_a_pack_without_memory_is_halved(sweep, tmp_path, monkeypatch):
    folder, alone = tmp_path / "out", tmp_path / "alone"
    grid = words("--class_counts 12 --weight_decays 0 0.1 0.2")
    real, sizes = pytorch_port.sweep.pack.pack_steps, []

    def limited(configs, *arguments, **options):
        sizes.append(len(configs))
        if len(configs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(configs, *arguments, **options)

    monkeypatch.setattr(pytorch_port.sweep.pack, "pack_steps", limited)
    ended = sweep(folder, *grid, "--pack", "3")
    assert ended.code == 0, ended.err
    assert "pack of 3 runs: out of memory; continuing with halves of it" in ended.err
    assert sizes == [3, 2, 1]
    plan = json.loads((folder / "manifest.json").read_text())
    assert [len(pack) for pack in plan["packs"]] == [2, 1]
    assert plan["size"] == 2
    assert sweep(alone, *grid).code == 0
    for name in names_of(alone):
        assert_equal_within_rounding(folder / name, alone / name)
    limit = torch.OutOfMemoryError("CUDA out of memory")

    def never(*_, **__):
        raise limit

    monkeypatch.setattr(pytorch_port.sweep.pack, "pack_steps", never)
    failed = sweep(tmp_path / "none", *grid[:5], "--pack", "2")
    assert failed.code == 1
    assert failed.out.count("failed out of memory") == 2


def test_auto_packs_by_free_memory_and_keeps_its_choice(sweep, tmp_path, monkeypatch):
    folder, grid = tmp_path / "out", words("--class_counts 12 --weight_decays 0 0.1 0.2 0.3")
    needed = []

    def free(device):
        needed.append(device)
        return 10**6

    monkeypatch.setattr("pytorch_port.sweep.pack_plan.bytes_of", lambda *_: 400_000)
    monkeypatch.setattr("trainrig.packs.free_bytes", free)
    assert sweep(folder, *grid, "--pack", "auto").code == 0
    plan = json.loads((folder / "manifest.json").read_text())
    assert plan["memory"] == {"bytes_per_run": 400_000, "free_bytes": 10**6, "jobs": 1}
    assert plan["size"] == 2
    assert [len(pack) for pack in plan["packs"]] == [2, 2]
    assert sweep(folder, *grid, "--pack", "auto").code == 0
    assert len(needed) == 1
    assert json.loads((folder / "manifest.json").read_text()) == plan
    more = sweep(folder, *grid[:2], "--weight_decays", "0", "0.1", "0.2", "0.3", "0.4", "0.5",
                 "--pack", "auto")  # fmt: skip
    assert more.code == 0, more.err
    grown = json.loads((folder / "manifest.json").read_text())["packs"]
    assert grown[:2] == plan["packs"]
    assert [len(pack) for pack in grown] == [2, 2, 2]


@pytest.mark.parametrize("given", ["0", "-1", "few"])
def test_pack_sizes_that_are_none(given, sweep, tmp_path):
    ended = sweep(tmp_path / "out", "--pack", given)
    assert ended.code == 2
    assert "is neither auto nor an integer of at least 1" in ended.err
    assert not (tmp_path / "out").exists()


def test_an_engine_for_single_runs_is_refused_for_packs(sweep, tmp_path):
    ended = sweep(tmp_path / "out", *GRID, "--pack", "2", "--set", "training.engine=compile")
    assert ended.code == 1
    assert "--engine compile: runs one by one; use --pack 1" in ended.err
    assert not (tmp_path / "out").exists()


def test_members_at_different_steps_are_refused(sweep, tmp_path):
    folder, grid = tmp_path / "out", words("--class_counts 12 --weight_decays 0 0.1")
    assert sweep(folder, *grid, "--pack", "2").code == 0
    for name in names_of(folder):
        (folder / name / "status.json").unlink()
    lagging = folder / names_of(folder)[0] / LATEST
    for path in lagging.iterdir():
        load_checkpoint(path)
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    ended = sweep(folder, *grid, "--pack", "2")
    assert ended.code == 1
    assert "stands at step 12, but others of its pack have no valid checkpoint later" in ended.out
