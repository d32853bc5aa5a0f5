"""Runs trained as one program leave what they leave alone, and resume to the same bits."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from optimizer_quality import experiment
from optimizer_quality import packed as packed_runs
from optimizer_quality.config import CifarConfig
from optimizer_quality.experiment import Runtime
from optimizer_quality.sweep import execute, parse_grid, plan_runs
from trainrig import recorder
from trainrig.checkpoint import list_checkpoints
from trainrig.config import InitConfig
from trainrig.data.device_loader import ImageBatches
from trainrig.launch.options import LaunchOptions
from trainrig.recorder import Recorder
from trainrig.runs import LATEST

RUNTIME = Runtime(tracker="none", quiet=True)
ONE = LaunchOptions(jobs=1)
BASE = CifarConfig(
    device="cpu", dataset="synthetic", model="resnet8_6n2", batch_size=24, train_items=56
)


def plan(seeds, rates="0.01"):
    base = dataclasses.replace(BASE, num_epochs=2, eval_every=1)
    return plan_runs(base, parse_grid([f"sgd={rates}"], []), seeds)


def rows(folder, name):
    text = (folder / name / "logs/metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def final(folder, name):
    return torch.load(folder / name / "final_model.pt", weights_only=True)


@pytest.fixture(scope="module")
def in_float64():
    """Networks and images in float64, where rounding is far below any other difference."""
    build, normalise = experiment.build_model, ImageBatches._normalise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "build_model", lambda *a, **k: build(*a, **k).double())
        patch.setattr(ImageBatches, "_normalise", lambda *a: normalise(*a).double())
        yield


@pytest.fixture(scope="module")
def packed(in_float64, tmp_path_factory):
    """Two seeds at a good rate and two at a rate that diverges, in packs of three."""
    folder = tmp_path_factory.mktemp("packed")
    outcomes = list(execute(plan([0, 1], "0.01,1e200"), folder, RUNTIME, ONE, pack=3))
    return folder, {outcome.name: outcome for outcome in outcomes}


def test_members_equal_separate_runs(packed, tmp_path):
    folder, outcomes = packed
    runs = plan([0, 1])
    assert {o.status for o in execute(runs, tmp_path, RUNTIME, ONE)} == {"complete"}
    for one in runs:
        assert outcomes[one.name].status == "complete"
        ours, alone = final(folder, one.name), final(tmp_path, one.name)
        torch.testing.assert_close(ours["model"], alone["model"], rtol=1e-10, atol=1e-10)
        assert (folder / one.name / "split_indices.json").read_bytes() == (
            tmp_path / one.name / "split_indices.json"
        ).read_bytes()
        for row, expected in zip(rows(folder, one.name), rows(tmp_path, one.name), strict=True):
            assert set(row) == set(expected)
            assert row.pop("split") == expected.pop("split")
            assert row == pytest.approx(expected, rel=1e-6)  # logits are rounded to float32
    sizes = [(f / runs[0].name / "final_model.pt").stat().st_size for f in (folder, tmp_path)]
    assert sizes[0] < 1.2 * sizes[1]


def test_a_diverged_member_leaves_the_others_alone(packed):
    folder, outcomes = packed
    diverged = [name for name, outcome in outcomes.items() if outcome.status == "diverged"]
    assert diverged == ["sgd_lr1e+200_seed0", "sgd_lr1e+200_seed1"]
    status = json.loads((folder / diverged[0] / "status.json").read_text())
    assert "loss, grad_norm, grad_norm/stem.0 and 2" in status["message"]
    assert "not finite between steps 1 and 3" in status["message"]
    assert not (folder / diverged[0] / "final_model.pt").exists()


def test_killed_between_two_members_checkpoints_continues_identically(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = plan([0, 1])
    assert all(o.status == "complete" for o in execute(runs, whole, RUNTIME, ONE, pack=2))
    save, calls = Recorder.write_checkpoint, []

    def dies(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 4:  # the second member's second epoch
            raise OSError("no space left")
        save(self, *arguments, **options)

    monkeypatch.setattr(Recorder, "write_checkpoint", dies)
    outcomes = list(execute(runs, killed, RUNTIME, ONE, pack=2))
    assert {o.status for o in outcomes} == {"failed"}
    monkeypatch.undo()
    outcomes = list(execute(runs, killed, RUNTIME, ONE, pack=2))
    assert {o.status for o in outcomes} == {"complete"}
    for one in runs:
        assert rows(whole, one.name) == rows(killed, one.name)
        ours, alone = final(killed, one.name), final(whole, one.name)
        assert ours["metrics"] == alone["metrics"]
        torch.testing.assert_close(ours["model"], alone["model"], rtol=0, atol=0)
        ends = [
            [p.name for _, p in list_checkpoints(f / one.name / LATEST)] for f in (killed, whole)
        ]
        assert ends == [["step_3", "step_6"]] * 2


def test_a_diverged_member_keeps_its_place_when_the_pack_goes_on(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = plan([0], "1e200,0.01")
    wanted = ["diverged", "complete"]
    assert [o.status for o in execute(runs, whole, RUNTIME, ONE, pack=2)] == wanted
    save, calls = Recorder.write_checkpoint, []

    def dies(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise OSError("no space left")
        save(self, *arguments, **options)

    monkeypatch.setattr(Recorder, "write_checkpoint", dies)
    assert [o.status for o in execute(runs, killed, RUNTIME, ONE, pack=2)] == ["diverged", "failed"]
    monkeypatch.undo()
    before = rows(killed, runs[0].name)
    outcomes = {o.name: o.status for o in execute(runs, killed, RUNTIME, ONE, pack=2)}
    assert outcomes == dict(zip([one.name for one in runs], wanted, strict=True))
    assert rows(killed, runs[0].name) == before
    name = runs[1].name
    assert rows(whole, name) == rows(killed, name)
    ours, alone = final(killed, name)["model"], final(whole, name)["model"]
    torch.testing.assert_close(ours, alone, rtol=0, atol=0)


def test_what_cannot_be_packed_is_refused(packed, tmp_path):
    folder, _ = packed
    runs = plan_runs(BASE, {"muon": (1e-3,)}, [0, 1])
    with pytest.raises(ValueError, match="'muon': cannot be packed"):
        list(execute(runs, tmp_path, RUNTIME, ONE, pack=2))
    with pytest.raises(ValueError, match="--pack 0: must be at least 1"):
        list(execute(runs, tmp_path, RUNTIME, ONE, pack=0))
    assert not list(tmp_path.iterdir())
    name = plan([0])[0].name
    (folder / name / "status.json").write_text('{"status": "running"}')
    with pytest.raises(ValueError, match="engine: packed -> eager"):
        list(execute(plan([0]), folder, RUNTIME, ONE))


def test_a_pack_without_memory_is_halved_and_keeps_its_halves(tmp_path, monkeypatch, capsys):
    real, sizes = packed_runs.Stack, []

    def limited(models):
        sizes.append(len(models))
        if len(models) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(models)

    runs, folder = plan([0, 1, 2, 3]), tmp_path / "halved"
    monkeypatch.setattr(packed_runs, "Stack", limited)
    outcomes = list(execute(runs, folder, RUNTIME, ONE, pack=4))
    assert sorted((o.name, o.status) for o in outcomes) == [(one.name, "complete") for one in runs]
    assert sizes == [4, 2, 2]
    assert "pack of 4 runs: out of memory; continuing with halves of it" in capsys.readouterr().err
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["packs"] == [[runs[0].name, runs[1].name], [runs[2].name, runs[3].name]]
    environment = json.loads((folder / runs[0].name / "environment.json").read_text())
    assert environment["pack"] == manifest["packs"][0]
    pairs = tmp_path / "pairs"
    list(execute(runs, pairs, RUNTIME, ONE, pack=2))
    for one in runs:
        assert rows(folder, one.name) == rows(pairs, one.name)
        ours, theirs = final(folder, one.name)["model"], final(pairs, one.name)["model"]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    with pytest.raises(ValueError, match="has packs of up to 2 runs, not 4"):
        list(execute(runs, folder, RUNTIME, ONE, pack=4))


def test_a_run_without_memory_is_reported_as_failed(tmp_path, monkeypatch):
    def never(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(packed_runs, "Stack", never)
    outcomes = list(execute(plan([0, 1]), tmp_path, RUNTIME, ONE, pack=2))
    assert [(o.status, o.message) for o in outcomes] == [("failed", "out of memory")] * 2


def test_auto_packs_what_the_memory_holds(tmp_path, monkeypatch):
    needed = packed_runs.bytes_of(BASE, torch.device("cpu"))
    images = 400 * 3 * 32 * 32  # the drawn set
    assert needed > images
    monkeypatch.setattr("trainrig.packs.free_bytes", lambda _: int(2.9 * needed / 0.8))
    list(execute(plan([0, 1, 2, 3]), tmp_path, RUNTIME, ONE, pack="auto"))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["size"] == 2
    assert manifest["memory"]["jobs"] == 1


def test_a_finished_pack_becomes_longer_bit_for_bit(tmp_path):
    whole, grown = tmp_path / "whole", tmp_path / "grown"
    base = dataclasses.replace(BASE, eval_every=2)
    for folder, epochs in ((grown, 1), (grown, 3), (whole, 3)):
        of = dataclasses.replace(base, num_epochs=epochs)  # as if the file said so
        runs = plan_runs(of, parse_grid(["sgd=0.01,1e200"], []), [0])
        outcomes = {o.name: o.status for o in execute(runs, folder, RUNTIME, ONE, pack=2)}
        assert [outcomes[one.name] for one in runs] == ["complete", "diverged"]
    name = runs[0].name
    assert rows(grown, name) == rows(whole, name)
    assert [row["split"] for row in rows(grown, name)].count("test") == 1
    ours, theirs = final(grown, name)["model"], final(whole, name)["model"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_pack_saves_by_time_and_sees_weights_that_are_not_finite(tmp_path, monkeypatch):
    seen, save = [], recorder.save_checkpoint

    def watched(folder, step, *arguments, **options):
        seen.append((step, options["interim"]))
        return save(folder, step, *arguments, **options)

    def spoil(record, step, sums, model, *rest):
        write_rows(record, step, sums, model, *rest)
        if step == 3 and record.directory.path.name.startswith("sgd_lr0.02"):
            model.fc.weight.data.fill_(float("nan"))

    write_rows = packed_runs.write_rows
    monkeypatch.setattr(packed_runs, "write_rows", spoil)
    monkeypatch.setattr(recorder, "save_checkpoint", watched)
    monkeypatch.setattr(recorder.Recorder, "save_is_due", lambda _: True)
    runs = plan([0], "0.01,0.02")
    outcomes = list(execute(runs, tmp_path, RUNTIME, ONE, pack=2))
    assert [o.status for o in outcomes] == ["complete", "diverged"]
    assert "weights not finite between steps 3 and 3" in outcomes[1].message
    both = [(1, True)] * 2 + [(2, True)] * 2
    assert seen == [*both, (3, False), (4, True), (5, True), (6, False)]


def test_a_pack_begins_with_the_state_of_another_run(tmp_path):
    stem, twigs = tmp_path / "stem", tmp_path / "twigs"
    (one,) = plan([0])
    assert [o.status for o in execute([one], stem, RUNTIME, ONE)] == ["complete"]
    init = InitConfig(run=f"{stem / one.name}@3", state=True)
    base = dataclasses.replace(BASE, num_epochs=2, eval_every=1, init=init)
    runs = plan_runs(base, parse_grid(["sgd=0.01"], []), [0, 1])
    assert [o.status for o in execute(runs, twigs, RUNTIME, ONE, pack=2)] == ["complete"] * 2
    for run in runs:
        assert [row["epoch"] for row in rows(twigs, run.name)] == [2, 2, 2]
        config = json.loads((twigs / run.name / "config.json").read_text())
        assert (config["branch"]["step"], config["branch"]["state"]) == (3, True)
    ours, theirs = final(twigs, runs[0].name)["model"], final(stem, one.name)["model"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
