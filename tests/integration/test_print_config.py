"""``--print-config``: every value of the run that would start, and where it came from."""

from __future__ import annotations

import pytest

QUICK = "configs/icl/quick.py"
BASE = "configs/optimizer_quality/base_config.yaml"

#: command line → rows that must be printed: key, value, from
CASES = {
    "pytorch_train --config configs/icl/quick.py --max-steps 7 --set training.batch_size=5": [
        ("training_steps", "7", "--max-steps"),
        ("training.batch_size", "5", "--set"),
        ("transformer.num_layers", "2", QUICK),
        ("training.accumulate", "1", "default"),
    ],
    "pytorch_train --example-type symbolic": [
        ("data.example_type", '"symbolic"', "--example-type"),
        ("embedding.example_encoding", '"embedding"', "follows from the flags"),
    ],
    "run_adamw_sweep_torch --preset quick --class_counts 100 --seeds 3 4": [
        ("seed", "0", QUICK),
        ("varied over 6 runs: class_counts 100; weight_decays 0.0 0.1 1.0; seeds 3 4", "", ""),
    ],
    "run_adamw_sweep_torch": [("training_steps", "50000", "--preset paper")],
    "run_figure3a_torch --preset quick --optimizer adamw": [
        ("optimizer.name", '"adamw"', "--optimizer"),
    ],
    "reproduce_published --preset quick --figures 2 --max-steps 9": [
        ("training_steps", "9", "--max-steps"),
    ],
    "run_experiment --optimizer adamw --num-epochs 3": [
        ("optimizer.type", '"adamw"', "--optimizer"),
        ("optimizer.lr", "null", "follows from the optimizer"),
        ("num_epochs", "3", "--num-epochs"),
        ("batch_size", "128", BASE),
        ("precision", '"fp32"', "default"),
    ],
    "sweep_optimizers --optimizers sgd=0.1 --seeds 5 --set batch_size=64": [
        ("batch_size", "64", "--set"),
        ("optimizer, lr and seed vary over the runs sgd_lr0.1_batch_size64_seed5", "", ""),
    ],
    "run_deepobs mnist_mlp --optimizer Momentum --lr 0.1 --hp dampening=0.5 --bs 9": [
        ("hyperparams.lr", "0.1", "--lr"),
        ("hyperparams.dampening", "0.5", "--hp"),
        ("hyperparams.momentum", "0.99", "the optimizer"),
        ("batch_size", "9", "--bs"),
        ("num_epochs", "100", "published default"),
        ("compat", '"fixed"', "$DEEPOBS_COMPAT"),
    ],
    "tune_deepobs mnist_mlp --grid lr=0.1,0.2 --seeds 1 2": [
        ("hyperparams.lr", "0.1", "searched; of the first run"),
        ("2 settings, each with seed 1 2", "", ""),
    ],
    "train_ptycho --config configs/ptycho/train.yaml --lr 0.01 --no-probe_big": [
        ("execution.learning_rate", "0.01", "--learning-rate"),
        ("model.probe_big", "false", "--probe_big"),
        ("training.nepochs", "16", "configs/ptycho/train.yaml"),
        ("execution.enable_checkpointing", "true", "default"),
    ],
    "infer_ptycho --test_data scan.npz --refine 9 --learn-probe --stream 4 --seed 3": [
        ("inference.test_data", '"scan.npz"', "--test_data"),
        ("inference.stream", "4", "--stream"),
        ("inference.middle_trim", "null", "default"),
        ("refinement.epochs", "9", "--refine"),
        ("refinement.learn_probe", "true", "--learn-probe"),
        ("refinement.seed", "3", "--seed"),
        ("refinement.batch_size", "32", "default"),
    ],
    "pytorch_regression": [
        ("data.source", '"synthetic"', "the regression"),
        ("training_steps", "2000", "the bounds"),
        ("transformer.num_layers", "2", QUICK),
        ("varied over 2 runs: class_counts 100 1600; weight_decays 0.0; seeds 0", "", ""),
    ],
    "tune_deepobs mnist_mlp --search bayesian --range lr=1e-4:1 --trials 7": [
        ("hyperparams.lr", "0.0001", "searched; of the first run"),
        ("7 settings, each with seed 42", "", ""),
    ],
}


@pytest.mark.parametrize("command", CASES)
def test_every_value_is_printed_with_its_origin(command, call_script, monkeypatch):
    monkeypatch.setenv("DEEPOBS_COMPAT", "fixed")
    script, *words = command.split()
    ended = call_script(script, [*words, "--print-config"])
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].split() == ["key", "value", "from"]
    rows = [line.split(maxsplit=2) for line in lines]
    for key, value, origin in CASES[command]:
        if origin:
            assert [key, value, origin] in rows
        else:
            assert any(line.startswith(key) for line in lines), ended.out


def test_values_of_an_inference_file_are_its_own(tmp_path, call_script):
    file = tmp_path / "infer.yaml"
    file.write_text("refine: 7\nlearn_probe: true\nseed: 3\nstream: 5\n")
    words = ["--config", str(file), "--test_data", "scan.npz", "--seed", "4", "--print-config"]
    ended = call_script("infer_ptycho", words)
    rows = {tuple(line.split(maxsplit=2)) for line in ended.out.splitlines()}
    assert rows >= {
        ("refinement.epochs", "7", str(file)),
        ("refinement.learn_probe", "true", str(file)),
        ("inference.stream", "5", str(file)),
        ("refinement.seed", "4", "--seed"),
    }
