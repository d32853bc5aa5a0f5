"""One ICL run through its script: exact repetition, exact resumption, honest outcomes."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import pytorch_port.data.inputs
from trainrig.checkpoint import latest_checkpoint, list_checkpoints
from trainrig.data.glyphs import load_glyphs
from trainrig.runs import LATEST, read_status
from trainrig.tracking.metric_log import TIMING_KEYS, MetricLog
from trainrig.tracking.progress import read_progress

APPEND = MetricLog.append
DROPOUT = ("--set", "transformer.dropout_prob=0.1", "--set", "embedding.example_dropout_prob=0.1")


def weights(path, step=None):
    steps = dict(list_checkpoints(path / LATEST))
    return (steps[step or max(steps)] / "weights.pt").read_bytes()


def metrics(path):
    return (path / "logs" / "metrics.jsonl").read_bytes()


def progress(path):
    rows = read_progress(path / "logs" / "progress.txt")
    return [[item for item in row.items() if item[0] not in TIMING_KEYS] for row in rows]


def assert_same(one, two):
    assert weights(one) == weights(two)
    assert metrics(one) == metrics(two)
    assert progress(one) == progress(two)
    assert read_status(one) == read_status(two)


@pytest.fixture
def interrupted(monkeypatch):
    """Return a function: interrupt, as by Ctrl-C, when the n-th row is logged."""

    def arm(rows):
        real, left = MetricLog.append, [rows]

        def append(log, row):
            real(log, row)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(MetricLog, "append", append)

    return arm


@pytest.fixture
def tiny_images(monkeypatch):
    """Twelve classes of ten glyphs in place of the image sources."""
    bank = load_glyphs(n_classes=12, n_exemplars=10, cache=False)
    monkeypatch.setattr(pytorch_port.data.inputs, "load_images", lambda *_, **__: bank)
    pytorch_port.data.inputs._bank.cache_clear()
    pytorch_port.data.inputs._prepared.cache_clear()
    yield bank
    pytorch_port.data.inputs._bank.cache_clear()
    pytorch_port.data.inputs._prepared.cache_clear()


IMAGES = (
    *("--example-type", "omniglot", "--source", "synthetic", "--downsample"),
    *("--example-encoding", "linear"),
)


def test_the_files_of_a_run(train, tmp_path):
    ended = train(tmp_path / "run")
    assert ended.code == 0, ended.err
    assert f"{tmp_path / 'run'}: complete at step 12" in ended.out
    path = tmp_path / "run"
    status = read_status(path)
    assert (status["status"], status["step"]) == ("complete", 12)
    assert set(status["metrics"]) == {"train", "holdout", "no_support"}
    rows = [json.loads(line) for line in metrics(path).splitlines()]
    at = {split: [r["step"] for r in rows if r["split"] == split] for split in status["metrics"]}
    assert at == {
        "train": [3, 6, 9, 12],
        "holdout": [4, 6, 8, 12],
        "no_support": [4, 6, 8, 12],
    }
    assert len(progress(path)) == len(rows)
    assert [step for step, _ in list_checkpoints(path / LATEST)] == [8, 12]
    config = json.loads((path / "config.json").read_text())
    assert config["training"]["batch_size"] == 4
    assert config["device"] == "cpu"
    assert json.loads((path / "environment.json").read_text())["versions"]["torch"]


@pytest.mark.parametrize("flags", [DROPOUT, IMAGES], ids=["symbols with dropout", "images"])
def test_the_same_command_twice_and_interrupted_in_between(
    train, tmp_path, interrupted, flags, request, monkeypatch
):
    if flags is IMAGES:
        request.getfixturevalue("tiny_images")
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    assert train(one, *flags).code == 0
    torch.rand(7)  # other work in the process must not matter
    assert train(two, *flags).code == 0
    assert_same(one, two)
    for rows in (7, 2):
        interrupted(rows)
        ended = train(three, *flags)
        assert ended.code == 130
        assert "the same command resumes" in ended.err
        assert read_status(three)["status"] == "interrupted"
        monkeypatch.setattr(MetricLog, "append", APPEND)  # as it was
    assert train(three, *flags, "--resume").code == 0
    assert_same(one, three)


def test_the_exact_sampler_does_not_depend_on_its_processes(train, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(one, "--sampler", "exact", "--num-workers", "0").code == 0
    assert train(two, "--sampler", "exact", "--num-workers", "2").code == 0
    assert_same(one, two)
    assert train(tmp_path / "three").code == 0
    assert metrics(one) != metrics(tmp_path / "three")


def test_accumulation_resumes_at_the_right_micro_batch(train, tmp_path, interrupted, monkeypatch):
    one, two, plain = tmp_path / "one", tmp_path / "two", tmp_path / "plain"
    assert train(one, "--accumulate", "2").code == 0
    interrupted(5)
    assert train(two, "--accumulate", "2").code == 130
    monkeypatch.setattr(MetricLog, "append", APPEND)
    assert train(two, "--accumulate", "2").code == 0
    assert_same(one, two)
    assert train(plain).code == 0
    assert weights(plain) != weights(one)


@pytest.mark.parametrize("model", ["transformer", "lstm", "vanilla_rnn"])
def test_every_sequence_model_trains_and_learns(train, tmp_path, model):
    layers = ("--set", "rnn.num_layers=1", "--set", "rnn.hidden_size=16")
    longer = ("--max-steps", "40", "--save-interval", "40", "--log-interval", "1")
    ended = train(tmp_path, "--set", f"seq_model={model}", *layers, *longer)
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in metrics(tmp_path).splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_penalties_differ_from_decoupled_decay_and_are_logged(train, tmp_path):
    final = {}
    for mode in ("decoupled", "sum_squares", "sum_norms"):
        path = tmp_path / mode
        flags = ("--l2-mode", mode, "--optimizer", "adamw", "--weight_decay", "0.1")
        assert train(path, *flags).code == 0
        rows = [json.loads(line) for line in metrics(path).splitlines()]
        last = [row for row in rows if row["split"] == "train"][-1]
        final[mode] = last["weight_l2_all"]
        assert ("penalized_loss" in last) == (mode != "decoupled")
        if mode != "decoupled":
            assert last["penalized_loss"] > last["loss"] + 1
    assert len(set(final.values())) == 3


def test_divergence_is_an_outcome_that_is_recorded_and_stays(train, tmp_path, tree_hash):
    ended = train(tmp_path, "--optimizer", "sgd", "--learning-rate", "1e30")
    assert ended.code == 1
    assert len(ended.error_lines) == 1
    assert "diverged at step 3" in ended.err
    assert "not finite between steps 1 and 3" in ended.err
    status = read_status(tmp_path)
    assert (status["status"], status["step"]) == ("diverged", 3)
    assert status["metrics"]["train"]["loss"] is None
    assert list_checkpoints(tmp_path / LATEST) == []
    before = tree_hash(tmp_path)
    again = train(tmp_path, "--optimizer", "sgd", "--learning-rate", "1e30")
    assert (again.code, again.error_lines) == (1, ended.error_lines)
    assert tree_hash(tmp_path) == before


def test_a_finished_run_is_skipped_and_overwrite_repeats_it(train, tmp_path, tree_hash):
    assert train(tmp_path).code == 0
    before = tree_hash(tmp_path)
    ended = train(tmp_path)
    assert ended.code == 0
    assert "complete at step 12" in ended.out
    assert tree_hash(tmp_path) == before
    assert train(tmp_path, "--overwrite", "--max-steps", "4").code == 0
    assert read_status(tmp_path)["step"] == 4
    assert [s for s, _ in list_checkpoints(tmp_path / LATEST)] == [4]


def test_every_flag_in_both_spellings(train, tmp_path):
    values = {
        "example-type": "symbolic", "example-encoding": "embedding", "n-rare": "7",
        "n-common": "3", "n-holdout": "5", "symbolic-dataset-size": "15", "seq-len": "9",
        "image-channels": "1", "num-layers": "1", "num-heads": "4", "optimizer": "adamw",
        "weight-decay": "0.5", "learning-rate": "1e-3", "batch-size": "3", "accumulate": "2",
        "precision": "fp32", "max-steps": "2", "log-interval": "1", "save-interval": "2",
        "eval-interval": "2", "eval-batches": "2", "eval-batch-size": "2", "num-workers": "0",
        "device": "cpu", "seed": "5",
    }  # fmt: skip
    runs = []
    for spelling, swap in (("dashes", "-"), ("underscores", "_")):
        flags = [w for k, v in values.items() for w in (f"--{k.replace('-', swap)}", v)]
        ended = train(tmp_path / spelling, *flags, f"--no{swap}downsample")
        assert ended.code == 0, ended.err
        runs.append(json.loads((tmp_path / spelling / "config.json").read_text()))
    assert runs[0] == runs[1]
    config = runs[0]
    assert config["data"]["generator_config"]["n_rare_classes"] == 7
    assert config["data"]["symbolic_config"]["dataset_size"] == 15
    assert config["optimizer"]["weight_decay"] == 0.5
    assert config["optimizer"]["max_lr"] == 1e-3
    assert config["training"]["accumulate"] == 2
    assert config["evaluation"] == {"batches": 2, "batch_size": 2}
    assert (config["seed"], config["training_steps"]) == (5, 2)


def test_a_diverged_run_does_not_stop_the_sweep(call_script, tmp_path):
    config = tmp_path / "toy.py"
    config.write_text(
        "def get_config():\n"
        "    return {\n"
        "        'data': {'example_type': 'symbolic', 'symbolic_config': {'dataset_size': 1623}},\n"
        "        'embedding': {'example_encoding': 'embedding', 'emb_dim': 16},\n"
        "        'transformer': {'num_layers': 1, 'num_heads': 2},\n"
        "        'optimizer': {'name': 'sgd', 'max_lr': 1.0, 'warmup_steps': 1},\n"
        "        'training': {'batch_size': 4, 'log_interval': 1, 'save_interval': 2},\n"
        "        'evaluation': {'batches': 1, 'batch_size': 4},\n"
        "    }\n"
    )
    base = tmp_path / "sweep"
    argv = [
        *("--config_path", config, "--base-output-dir", base, "--class_counts", "30"),
        *("--weight_decays", "1e30", "0", "--training_steps", "4", "--jobs", "1"),
        *("--device", "cpu", "--no-track"),
    ]
    ended = call_script("run_adamw_sweep_torch", argv)
    assert ended.code == 0, ended.err
    assert read_status(base / "class30_wd1e+30")["status"] == "diverged"
    assert read_status(base / "class30_wd0")["status"] == "complete"
    before = weights(base / "class30_wd0")
    assert call_script("run_adamw_sweep_torch", argv).code == 0
    assert weights(base / "class30_wd0") == before
    checkpoint, _ = latest_checkpoint(base / "class30_wd0" / LATEST)
    assert checkpoint.step == 4


def rows_of(folder):
    text = (folder / "logs" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_finished_run_is_trained_longer_to_the_same_bits(train, tmp_path):
    assert train(tmp_path / "whole", "--max-steps", "12").code == 0
    assert train(tmp_path / "grown", "--max-steps", "7").code == 0
    assert train(tmp_path / "grown", "--max-steps", "12").code == 0
    weights = ["checkpoints/models/latest/step_12/weights.pt", "logs/metrics.jsonl"]
    for name in weights:
        assert (tmp_path / "grown" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    shorter = train(tmp_path / "grown", "--max-steps", "9")
    assert shorter.code == 1
    assert "can only become longer" in shorter.err


def test_a_branch_with_state_is_the_unbroken_run_and_records_its_beginning(train, tmp_path):
    assert train(tmp_path / "whole", "--max-steps", "12").code == 0
    step, _ = list_checkpoints(tmp_path / "whole" / LATEST)[0]
    begin = ["--init-from", f"{tmp_path}/whole@{step}"]
    assert train(tmp_path / "twig", "--max-steps", "12", *begin, "--init-state").code == 0
    name = "checkpoints/models/latest/step_12/weights.pt"
    assert (tmp_path / "twig" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert rows_of(tmp_path / "twig") == [
        row for row in rows_of(tmp_path / "whole") if row["step"] > step
    ]
    branch = json.loads((tmp_path / "twig" / "config.json").read_text())["branch"]
    assert (branch["step"], branch["state"]) == (step, True)

    begun = (tmp_path / "twig" / name).read_bytes()
    again = train(tmp_path / "twig", "--max-steps", "12", *begin, "--init-state", "--overwrite")
    assert again.code == 0, again.err
    assert (tmp_path / "twig" / name).read_bytes() == begun  # from the same beginning, not none

    other = ["--weight-decay", "0.1", "--optimizer", "adamw"]
    assert train(tmp_path / "other", "--max-steps", "4", *begin, *other).code == 0
    for source, words in (
        (f"{tmp_path}/whole@12", f"began from step {step}, not from 12"),
        (f"{tmp_path}/strange", "began from another run"),
    ):
        if not (tmp_path / "strange").exists():
            steps = ["--max-steps", str(step), "--seed", "5"]
            assert train(tmp_path / "strange", *steps).code == 0
        wrong = train(tmp_path / "other", "--max-steps", "6", "--init-from", source, *other)
        assert wrong.code == 1
        assert words in wrong.err
    shutil.rmtree(tmp_path / "whole")  # a run that has begun does not need it any more
    assert train(tmp_path / "other", "--max-steps", "6", *begin, *other).code == 0
    absent = train(tmp_path / "new", *begin)
    assert absent.code == 1
    assert "holds no checkpoint" in absent.err
