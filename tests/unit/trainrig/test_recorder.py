"""The recorder: one way to open, restore, save, stop, end, lengthen and branch a run."""

from __future__ import annotations

import itertools
import json
import os
import signal

import pytest
import torch
from torch import nn

from trainrig import recorder
from trainrig.branching import open_branch
from trainrig.checkpoint import latest_checkpoint, list_checkpoints
from trainrig.errors import CheckpointError, DivergedError
from trainrig.files import read_json
from trainrig.loop import train_steps
from trainrig.models import channels
from trainrig.models.batchnorm import BatchNorm2d, implementation
from trainrig.optim.schedules import constant
from trainrig.recorder import Intervals, recorded
from trainrig.runs import LATEST
from trainrig.stopping import Interruption


def batches(start):
    for number in itertools.count(start):
        yield torch.randn(8, 1, generator=torch.Generator().manual_seed(number))


def loss_fn(model, x):
    return (model(nn.functional.dropout(x, 0.5)) - 2 * x).square().mean(), None


def fit(
    path, total=20, *, lr=0.01, decay=0.0, at=None, branch=None, seed=0, closing=False, **intervals
):
    """Train a line with momentum and dropout; ``at`` maps a step to what happens before it.

    ``closing`` writes a row every 4 steps that has more every 8 and at the end, and a last one.
    """
    settings = {"log": 3, "evaluate": 5, "save": 8, "save_seconds": 0.0} | intervals
    torch.manual_seed(seed)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=decay)
    config = {"lr": lr, "total": total}
    if branch is not None:
        config["branch"] = branch.identity()
    with recorded(
        path,
        config,
        {},
        total=total,
        length="total",
        branch=branch,
        intervals=Intervals(**settings),
        columns=("step", "split", "loss"),
    ) as run:
        start = run.restore(model, optimizer=optimizer)
        for step in train_steps(
            model,
            optimizer,
            batches(start),
            loss_fn,
            schedule=constant(lr),
            total_steps=total,
            start_step=start,
        ):
            if run.logs(step.step):
                run.row("train", step.step, loss=step.loss.item())
            if run.evaluates(step.step):
                run.evaluation("test", step.step, weight=model.weight.item())
            if closing and step.step % 4 == 0:
                write_closing(run, step.step, loss=step.loss.item())
            if at and step.step in at:
                at[step.step](model)
            run.settle(step.step)
    return run.result


def write_closing(run, step, loss):
    if step % 8 == 0:
        run.row("norms", step, loss=loss, norm=1.0)
    elif step == run.total:
        run.last("norms", step, instead={"loss": loss}, loss=loss, norm=1.0)
    else:
        run.row("norms", step, loss=loss)
    run.evaluation("after", step, value=loss + 1)
    if step == run.total:
        run.last("final", step, loss=loss)


def newest(path):
    checkpoint, ignored = latest_checkpoint(path / LATEST)
    assert not ignored
    return checkpoint


def content(path):
    """Everything that must be equal: weights, optimizer, random state, rows."""
    checkpoint = newest(path)
    state = {k: v for k, v in checkpoint.state.items() if k not in ("elapsed", "log_sizes")}
    state.pop("before_ending", None)
    rows = (path / "logs" / "metrics.jsonl").read_text()
    return checkpoint.step, repr(checkpoint.weights), repr(state), rows


def rows(path):
    return [json.loads(line) for line in (path / "logs/metrics.jsonl").read_text().splitlines()]


def test_a_run_logs_evaluates_saves_and_ends(tmp_path):
    result = fit(tmp_path)
    assert (result.status, result.step) == ("complete", 20)
    assert set(result.metrics) == {"train", "test"}
    logged = [(r["step"], r["split"]) for r in rows(tmp_path)]
    assert [s for s, split in logged if split == "train"] == [3, 6, 9, 12, 15, 18, 20]
    assert [s for s, split in logged if split == "test"] == [5, 8, 10, 15, 16, 20]
    assert [step for step, _ in list_checkpoints(tmp_path / LATEST)] == [16, 20]


def test_a_finished_run_is_left_as_it_is(tmp_path):
    first = fit(tmp_path)
    before = content(tmp_path)
    assert fit(tmp_path) == first
    assert content(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("step", [1, 8, 13])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, step, number):
    fit(tmp_path / "whole")
    with pytest.raises(Interruption):
        fit(tmp_path / "parts", at={step: lambda _: os.kill(os.getpid(), number)})
    assert read_json(tmp_path / "parts" / "status.json")["status"] == "interrupted"
    assert newest(tmp_path / "parts").step == step
    assert fit(tmp_path / "parts").ok
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_an_error_is_recorded_and_the_run_resumes(tmp_path):
    def fail(_):
        raise OSError("no space left on device")

    fit(tmp_path / "whole")
    with pytest.raises(OSError, match="no space"):
        fit(tmp_path / "parts", at={11: fail})
    status = read_json(tmp_path / "parts" / "status.json")
    assert (status["status"], status["message"]) == ("failed", "no space left on device")
    assert fit(tmp_path / "parts").ok
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_divergence_is_seen_in_rows_and_in_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "COST_FACTOR", 0)

    def spoil(model):
        model.weight.data.fill_(float("nan"))

    seen = fit(tmp_path / "rows", at={4: spoil})
    assert seen.status == "diverged"
    assert "weight not finite between steps 4 and 5" in seen.message
    unseen = fit(tmp_path / "weights", at={7: spoil}, log=0, evaluate=0, save=0, save_seconds=1e-9)
    assert unseen.status == "diverged"
    assert "weights not finite" in unseen.message
    assert fit(tmp_path / "rows", at={4: spoil}) == seen


def test_checkpoints_by_time_leave_the_files_of_any_other_run(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "COST_FACTOR", 0)
    kept = []
    look = {step: lambda _: kept.append(list_checkpoints(tmp_path / LATEST)) for step in (5, 7)}
    fit(tmp_path, at=look, save_seconds=1e-9)
    assert [[path.name for _, path in found] for found in kept] == [
        ["step_4_interim"],
        ["step_6_interim"],
    ]
    assert [path.name for _, path in list_checkpoints(tmp_path / LATEST)] == ["step_16", "step_20"]


@pytest.mark.parametrize("first", [7, 8, 12, 19])
def test_a_finished_run_becomes_longer_bit_for_bit(tmp_path, first):
    fit(tmp_path / "whole", 20)
    fit(tmp_path / "grown", first)
    assert fit(tmp_path / "grown", 20).step == 20
    assert content(tmp_path / "grown") == content(tmp_path / "whole")
    assert [p.name for _, p in list_checkpoints(tmp_path / "grown" / LATEST)] == [
        "step_16",
        "step_20",
    ]
    record = read_json(tmp_path / "grown" / "environment.json")["lengthened"]
    assert record == [{"from": first, "to": 20}]
    assert read_json(tmp_path / "grown" / "config.json")["total"] == 20


@pytest.mark.parametrize("first", [4, 8, 12])
def test_rows_of_the_last_step_give_way_to_those_of_a_longer_run(tmp_path, first):
    every_4 = {"closing": True, "log": 4, "evaluate": 4}
    fit(tmp_path / "whole", 16, **every_4)
    fit(tmp_path / "grown", first, **every_4)
    ends = rows(tmp_path / "grown")[-4:]
    assert [row["split"] for row in ends] == ["test", "norms", "after", "final"]
    assert ends[1]["norm"] == 1.0
    fit(tmp_path / "grown", 16, **every_4)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")
    assert [row["split"] for row in rows(tmp_path / "grown")].count("final") == 1


def test_a_loop_without_a_record_keeps_the_newest_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(1, 1)
    run = recorder.Unrecorded(2, columns=("loss",))
    assert run.restore(model) == 0
    for step in (1, 2):
        run.row("train", step, loss=float(step), other=0.0)
        run.settle(step)
    assert run.latest == {"train": {"loss": 2.0}}
    with pytest.raises(DivergedError, match="loss not finite between steps 3 and 4"):
        run.row("train", 4, loss=float("nan"))
    assert not list(tmp_path.iterdir())


def test_a_run_killed_while_it_becomes_longer_resumes(tmp_path):
    fit(tmp_path / "whole", 20)
    fit(tmp_path / "grown", 7)
    with pytest.raises(Interruption):
        fit(tmp_path / "grown", 20, at={9: lambda _: os.kill(os.getpid(), signal.SIGTERM)})
    assert fit(tmp_path / "grown", 20).ok
    assert content(tmp_path / "grown") == content(tmp_path / "whole")
    assert len(read_json(tmp_path / "grown" / "environment.json")["lengthened"]) == 1


def test_a_run_continues_only_with_the_batch_norm_it_began_with(tmp_path, monkeypatch):
    monkeypatch.delenv("TRAINRIG_FORCE_RESUME", raising=False)

    def train(stop):
        model = nn.Sequential(BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 1))
        with recorded(tmp_path, {}, {}, total=4, columns=("step",)) as run:
            for step in range(run.restore(model) + 1, 5):
                if step == stop:
                    os.kill(os.getpid(), signal.SIGTERM)
                run.settle(step)

    monkeypatch.setattr(channels, "compiled", lambda: None)
    with pytest.raises(Interruption):
        train(stop=2)
    assert read_json(tmp_path / "environment.json")["batch_norm"] == "operators"
    monkeypatch.setattr(channels, "compiled", object)
    with pytest.raises(ValueError, match="batch_norm: operators -> compiled"):
        train(stop=None)
    assert read_json(tmp_path / "status.json")["status"] == "interrupted"
    monkeypatch.setattr(channels, "compiled", lambda: None)
    train(stop=None)
    assert read_json(tmp_path / "status.json")["status"] == "complete"


def test_a_model_without_batch_norm_compiles_nothing(monkeypatch):
    monkeypatch.setattr(channels, "compiled", None)
    assert implementation(nn.Linear(1, 1)) is None
    assert implementation(BatchNorm2d(1).double()) is None


def test_a_run_cannot_become_shorter_nor_change_besides(tmp_path):
    fit(tmp_path, 20)
    before = content(tmp_path)
    with pytest.raises(ValueError, match="can only become longer"):
        fit(tmp_path, 19)
    with pytest.raises(ValueError, match="another configuration"):
        fit(tmp_path, 21, lr=0.02)
    assert content(tmp_path) == before


def test_a_diverged_run_cannot_become_longer(tmp_path):
    spoil = {4: lambda model: model.weight.data.fill_(float("nan"))}
    fit(tmp_path, 8, at=spoil)
    with pytest.raises(ValueError, match="has diverged"):
        fit(tmp_path, 20)


def test_a_branch_with_state_continues_as_the_unbroken_run(tmp_path):
    fit(tmp_path / "whole", 20)
    fit(tmp_path / "stem", 16)
    branch = open_branch(f"{tmp_path}/stem@8", state=True)
    fit(tmp_path / "twig", 20, branch=branch, seed=5)
    ours, theirs = newest(tmp_path / "twig"), newest(tmp_path / "whole")
    assert ours.step == theirs.step == 20
    assert repr(ours.weights) == repr(theirs.weights)
    assert repr(ours.state["optimizer"]) == repr(theirs.state["optimizer"])
    later = [row for row in rows(tmp_path / "whole") if row["step"] > 8]
    assert rows(tmp_path / "twig") == later
    identity = read_json(tmp_path / "twig" / "config.json")["branch"]
    assert identity == {"step": 8, "state": True, "sha256": list(branch.sha256)}


@pytest.mark.parametrize("known", [True, False])
def test_a_branch_with_state_keeps_its_own_settings(tmp_path, known):
    """The decay that was asked for, not the one of the run that it begins from."""
    fit(tmp_path / "stem", 8)
    branch = open_branch(str(tmp_path / "stem"), state=True)
    if not known:
        del branch.checkpoint.state["settings"]  # of an older run
    fit(tmp_path / "twig", 16, branch=branch, decay=0.5)
    fit(tmp_path / "plain", 16, branch=open_branch(str(tmp_path / "stem"), state=True))
    (group,) = newest(tmp_path / "twig").state["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.5
    ours, plain = (newest(tmp_path / name).weights["weight"] for name in ("twig", "plain"))
    assert abs(ours) < abs(plain)


def test_a_branch_of_weights_begins_at_step_1(tmp_path):
    fit(tmp_path / "stem", 8)
    branch = open_branch(str(tmp_path / "stem"), state=False)
    fit(tmp_path / "twig", 3, branch=branch, log=1, lr=0.02)
    assert [row["step"] for row in rows(tmp_path / "twig") if row["split"] == "train"] == [1, 2, 3]
    first = fit(tmp_path / "plain", 3, log=1, lr=0.02)
    assert first.metrics != read_json(tmp_path / "twig" / "status.json")["metrics"]


def test_a_branch_names_what_is_wrong(tmp_path):
    fit(tmp_path / "stem", 8)
    with pytest.raises(ValueError, match=r"has no checkpoint of step 3; it has 8"):
        open_branch(f"{tmp_path}/stem@3", state=True)
    with pytest.raises(ValueError, match="holds no checkpoint"):
        open_branch(str(tmp_path / "absent"), state=True)
    branch = open_branch(f"{tmp_path}/stem@8", state=True)
    with pytest.raises(ValueError, match="this run ends after 8"):
        fit(tmp_path / "twig", 8, branch=branch)
    (tmp_path / "stem" / LATEST / "step_8" / "weights.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError):
        open_branch(str(tmp_path / "stem"), state=False)


def test_a_loop_that_ends_early_is_a_failure(tmp_path):
    with (
        pytest.raises(RuntimeError, match="ended after step 0 of 3"),
        recorded(tmp_path, {}, {}, total=3) as run,
    ):
        run.restore(nn.Linear(1, 1))
    assert read_json(tmp_path / "status.json")["status"] == "failed"


def test_without_an_interval_those_by_the_clock_stay_like_regular_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "COST_FACTOR", 0)
    fit(tmp_path / "only", save=0, save_seconds=1e-9)
    names = [path.name for _, path in list_checkpoints(tmp_path / "only" / LATEST)]
    assert names == ["step_19", "step_20"]
    fit(tmp_path / "both", save=8, save_seconds=1e-9)
    names = [path.name for _, path in list_checkpoints(tmp_path / "both" / LATEST)]
    assert names == ["step_16", "step_20"]


def test_an_experiment_may_decide_itself_what_diverged_is(tmp_path):
    model = nn.Linear(1, 1)
    with recorded(tmp_path, {}, {}, total=2, finite=False, intervals=Intervals(log=1)) as run:
        run.restore(model)
        run.row("train", 1, loss=float("nan"))
        with torch.no_grad():
            model.weight.fill_(float("inf"))
        run.settle(2)
    assert run.result.status == "complete"
    assert run.result.metrics == {"train": {"loss": None}}
