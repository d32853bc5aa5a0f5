"""A ptychography training keeps the promises of every run: longer, branched, stopped, diverged."""

from __future__ import annotations

import signal

import pytest
import torch

from kills import fingerprint
from ptycho_torch.config_params import TrainingConfig
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.train import train
from ptycho_torch.train.steps import Arithmetic, update_of
from trainrig.checkpoint import latest_checkpoint, list_checkpoints
from trainrig.files import read_json
from trainrig.recorder import Recorder
from trainrig.run_status import read_status
from trainrig.runs import LATEST
from trainrig.stopping import StopRequest


@pytest.fixture
def call(commands, call_script):
    """Return a function: folder, more flags -> how a toy training of 4 steps an epoch ended."""
    script, argv = commands["ptycho"]

    def run(folder, *more):
        return call_script(script, [*argv(folder), *more])

    return run


def weights_of(folder):
    return latest_checkpoint(folder / LATEST)[0].weights


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize("scheduler", ["Default", "Exponential", "ReduceLROnPlateau"])
def test_a_longer_training_is_one_that_was_never_shorter(scheduler, call, tmp_path):
    flags = ["--scheduler", scheduler, "--plateau-patience", "0", "--lr", "0.01"]
    for folder, lengths in (("whole", "3"), ("grown", "13")):
        for epochs in lengths:
            assert call(tmp_path / folder, *flags, "--nepochs", epochs).code == 0
    assert fingerprint(tmp_path / "grown") == fingerprint(tmp_path / "whole")
    record = read_json(tmp_path / "grown/environment.json")["lengthened"]
    assert record == [{"from": 1, "to": 3}]
    shorter = call(tmp_path / "grown", *flags, "--nepochs", "2")
    assert shorter.code == 1
    assert "a run of 3 (training.epochs), which cannot become 2" in shorter.err


def test_a_rate_that_depends_on_the_length_forbids_another(call, tmp_path):
    assert call(tmp_path, "--scheduler", "WarmupCosine").code == 0
    ended = call(tmp_path, "--scheduler", "WarmupCosine", "--nepochs", "3")
    assert ended.code == 1
    assert "another configuration (training.epochs: 2 -> 3)" in ended.err


def test_a_checkpoint_by_time_within_an_epoch_resumes_exactly(call, tmp_path, monkeypatch):
    assert call(tmp_path / "whole").code == 0
    settle = Recorder.settle

    def killed(record, step):
        settle(record, step)
        if step == 3:
            raise OSError("the node is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "save_is_due", lambda record: record.step in (1, 2))
        patched.setattr(Recorder, "settle", killed)
        assert call(tmp_path / "part").code == 1
    names = [path.name for _, path in list_checkpoints(tmp_path / "part" / LATEST)]
    assert names == ["step_2_interim"]  # of an epoch of 4 steps; the one before has gone
    assert call(tmp_path / "part", "--resume").code == 0
    assert fingerprint(tmp_path / "part") == fingerprint(tmp_path / "whole")


def test_weights_that_are_not_finite_are_never_saved(call, tmp_path, monkeypatch):
    settle = Recorder.settle

    def spoilt(record, step):
        if step == 4:
            next(iter(record._model.parameters())).data.fill_(torch.nan)
        settle(record, step)

    with monkeypatch.context() as patched:
        patched.setattr(Recorder, "settle", spoilt)
        ended = call(tmp_path)
    assert ended.code == 1
    assert "diverged: weights not finite between steps" in ended.err
    assert list_checkpoints(tmp_path / LATEST) == []
    assert read_status(tmp_path)["status"] == "diverged"
    with monkeypatch.context() as patched:  # it is said, and not met again
        patched.setattr(train, "_train", None)
        again = call(tmp_path)
    assert (again.code, again.error_lines) == (1, ended.error_lines)


def test_a_training_begins_from_another(call, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert call(whole, "--nepochs", "3").code == 0
    assert call(part, "--nepochs", "2").code == 0
    flags = ["--init-from", f"{part}@4", "--init-state", "--nepochs", "3"]
    for _ in range(2):  # the same command again leaves it alone
        assert call(tmp_path / "state", *flags).code == 0
    assert_equal(weights_of(tmp_path / "state"), weights_of(whole))
    assert read_json(tmp_path / "state/config.json")["branch"]["step"] == 4
    other = ["--lr", "0.01", "--nphotons", "1e5", "--nepochs", "1"]
    assert call(tmp_path / "weights", "--init-from", part, *other).code == 0
    ours, plain = weights_of(tmp_path / "weights"), weights_of(part)
    assert torch.equal(ours["net.probe_parts"], plain["net.probe_parts"])
    assert read_json(tmp_path / "weights/config.json")["branch"]["state"] is False
    refused = call(tmp_path / "weights", "--init-from", f"{part}@4", *other)
    assert refused.code == 1
    assert "began from step 8, not from 4" in refused.err


def test_the_probe_of_another_scan_is_not_taken_over(call, tmp_path, toy_scan_file):
    import numpy as np

    with np.load(toy_scan_file) as found:
        arrays = dict(found)
    arrays["probeGuess"] = arrays["probeGuess"] * np.complex64(1j)
    arrays["diff3d"] = arrays["diff3d"] * np.float32(2)
    np.savez(tmp_path / "other.npz", **arrays)
    assert call(tmp_path / "first", "--nepochs", "1").code == 0
    flags = ["--train_data_file", tmp_path / "other.npz", "--nepochs", "1", "--lr", "1e-12"]
    assert call(tmp_path / "own", *flags).code == 0
    assert call(tmp_path / "begun", *flags, "--init-from", tmp_path / "first").code == 0
    first, own, begun = (weights_of(tmp_path / name) for name in ("first", "own", "begun"))
    for name in ("input_factor", "intensity_scale", "probe_norm", "net.probe_parts"):
        assert torch.equal(begun[name], own[name])
        assert name == "probe_norm" or not torch.equal(begun[name], first[name])
    name = "net.generator.encoder.convs.0.weight"
    torch.testing.assert_close(begun[name], first[name], rtol=0, atol=1e-9)
    assert not torch.allclose(begun[name], own[name])


def test_an_early_stop_is_an_end(call, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 1.0])
    monkeypatch.setattr(train, "evaluate", lambda *_, **__: next(losses))
    flags = ["--early-stop-patience", "1", "--nepochs"]
    assert call(tmp_path, *flags, "6").code == 0
    status = read_status(tmp_path)
    assert [status[key] for key in ("status", "epoch", "epochs", "stopped_early")] == [
        "complete", 3, 6, 1,
    ]  # fmt: skip
    before = (tmp_path / "logs/metrics.jsonl").read_bytes()
    assert call(tmp_path, *flags, "6").code == 0
    assert call(tmp_path, *flags, "9").code == 0  # a longer one would have ended there too
    assert (tmp_path / "logs/metrics.jsonl").read_bytes() == before
    assert next(losses) == 1.0  # nothing was evaluated
    losses = iter([2.2, 2.1, 2.3])
    assert call(tmp_path, "--early-stop-patience", "2", "--nepochs", "9").code == 0
    assert [read_status(tmp_path)[key] for key in ("epoch", "stopped_early")] == [4, 2]


def test_checkpoints_of_an_earlier_version_are_refused_by_name(call, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}}, tmp_path / "checkpoints/last.ckpt")
    ended = call(tmp_path)
    assert ended.code == 1
    assert "last.ckpt: of an earlier version" in ended.err
    assert call(tmp_path, "--overwrite").code == 0


def test_a_refinement_stops_when_asked_to(call, tmp_path, monkeypatch):
    flags = ["--do_stitching", "--refine", "3"]
    assert call(tmp_path / "whole", *flags).code == 0
    looks, due = [], StopRequest.due

    def signalled(request):
        looks.append(1)
        if len(looks) == 9:  # 7 steps but the last, then the epochs of the refinement
            signal.raise_signal(signal.SIGTERM)
        return due(request)

    with monkeypatch.context() as patched:
        patched.setattr(StopRequest, "due", signalled)
        ended = call(tmp_path / "part", *flags)
    assert ended.code == 143, ended.err
    assert "refinement epoch 2: stopped (SIGTERM)" in ended.err
    status = read_status(tmp_path / "part")
    assert (status["status"], status["epoch"]) == ("interrupted", 2)
    assert call(tmp_path / "part", *flags).code == 0
    assert fingerprint(tmp_path / "part") == fingerprint(tmp_path / "whole")


def test_a_scaled_gradient_makes_the_step_of_an_unscaled_one():
    """What 16-mixed does on a GPU; here in float32, where a power of two changes no bit."""
    stepped = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        net.training_config = TrainingConfig(gradient_clip_val=0.1)
        arithmetic = Arithmetic("32-true", torch.device("cpu"))
        arithmetic.scaler = scaler
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)

        def loss(model, batch, scaler=scaler):
            value = model(batch).square().mean()
            return (value if scaler is None else scaler.scale(value)), None

        update = update_of(net, optimizer, arithmetic, None)
        update(1, net, optimizer, loss, [[torch.ones(4, 3)]])
        stepped.append(net.weight.detach().clone())
    assert torch.equal(*stepped)
    net.training_config = TrainingConfig(optimizer="lbfgs")
    with pytest.raises(ValueError, match="--precision 16-mixed: not with lbfgs"):
        update_of(net, torch.optim.LBFGS(net.parameters()), arithmetic, None)


def test_a_checkpoint_loads_with_configurations_of_the_caller(call, tmp_path):
    assert call(tmp_path, "--nepochs", "1").code == 0
    path = tmp_path / "checkpoints/last.ckpt"
    mine = TrainingConfig(notes="mine")
    model = PtychoPINN_Lightning.load_from_checkpoint(path, training_config=mine)
    assert model.training_config is mine
    assert_equal(model.state_dict(), weights_of(tmp_path))
