"""Bad input: one clear line, exit status 1 or 2, no traceback, nothing changed on the disk."""

from __future__ import annotations

import zipfile

import pytest
import torch

import pytorch_port.data.inputs
from trainrig.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from trainrig.runs import LATEST

#: extra flags of pytorch_train -> exit status, what the line must say
FLAGS = {
    "unknown flag": (["--weight-decai", "1"], 2, "did you mean '--weight"),
    "unknown key": (["--set", "optimizer.max_lrr=1"], 1, "did you mean 'max_lr'"),
    "unknown section": (["--set", "optimiser.max_lr=1"], 1, "did you mean 'optimizer.max_lr'"),
    "key below a value": (["--set", "seed.x=1"], 1, "unknown key 'seed.x'"),
    "no equals sign": (["--set", "seed"], 1, "no '=' found"),
    "unknown choice": (["--example-encoding", "convolution"], 2, "invalid choice: 'convolution'"),
    "unknown source": (["--source", "web"], 1, "image source: 'web' is unknown"),
    "unknown precision": (["--precision", "fp8"], 2, "invalid choice: 'fp8'"),
    "unknown mode": (["--set", "data.train_seqs=burtsy"], 1, "did you mean 'bursty'"),
    "unknown labelling": (["--set", "data.seq_config.labeling_rare=odd"], 1, "labeling"),
    "unknown model": (["--set", "seq_model=gru"], 1, "lstm, transformer, vanilla_rnn"),
    "unknown optimizer": (["--optimizer", "adamm"], 1, "did you mean 'adam'"),
    "no optimizer": (["--optimizer", "torch.nn.Linear"], 1, "not a subclass"),
    "no module": (["--optimizer", "no_such.Thing"], 1, "cannot import 'no_such'"),
    "optimizer argument": (["--set", "optimizer.kwargs.beta=1"], 1, "unknown argument 'beta'"),
    "optimizer value": (["--set", "optimizer.kwargs.eps=-1"], 1, "psilon"),
    "one beta": (["--set", "optimizer.kwargs.betas=[0.9]"], 1, "refuses"),
    "decay among the arguments": (
        ["--set", "optimizer.kwargs.weight_decay=1"],
        1,
        "give it as optimizer.weight_decay",
    ),
    "text for a number": (["--weight-decay", "much"], 2, "invalid float value: 'much'"),
    "text for a key": (["--set", "optimizer.weight_decay=much"], 1, "a number is expected"),
    "negative decay": (["--weight-decay", "-1"], 1, "weight_decay is -1.0"),
    "decay not a number": (["--weight-decay", "nan"], 1, "weight_decay is nan"),
    "endless decay": (["--weight-decay", "inf"], 1, "weight_decay is inf"),
    "decay for adam": (["--optimizer", "adam", "--weight-decay", "1"], 1, "use optimizer adamw"),
    "learning rate 0": (["--learning-rate", "0"], 1, "max_lr is 0.0"),
    "learning rate nan": (["--learning-rate", "nan"], 1, "max_lr is nan"),
    "half a step": (["--max-steps", "1.5"], 2, "invalid int value: '1.5'"),
    "no steps": (["--max-steps", "0"], 1, "training_steps is 0"),
    "no batch": (["--batch-size", "0"], 1, "batch_size is 0"),
    "no accumulation": (["--accumulate", "0"], 1, "accumulate is 0"),
    "no interval": (["--save-interval", "0"], 1, "save_interval is 0"),
    "no evaluation": (["--eval-batches", "-3"], 1, "batches is -3"),
    "negative seed": (["--seed", "-1"], 1, "seed is -1"),
    "negative classes": (["--n-rare", "-1"], 1, "n_rare_classes is -1"),
    "no classes to train": (["--n-rare", "0", "--n-common", "0"], 1, "class"),
    "too few holdout classes": (["--n-holdout", "0"], 1, "holdout"),
    "symbols too few": (
        ["--symbolic-dataset-size", "11"],
        1,
        "dataset_size is 11; at least the 12",
    ),
    "symbols too many": (["--symbolic-dataset-size", "13"], 1, "dataset_size is 13"),
    "sequence too short": (["--seq-len", "6"], 1, "seq_len is 6"),
    "heads do not divide": (["--num-heads", "3"], 1, "num_heads is 3"),
    "probability": (["--set", "transformer.dropout_prob=1"], 1, "dropout_prob is 1.0"),
    "probability nan": (["--set", "data.seq_config.p_bursty=nan"], 1, "p_bursty is nan"),
    "images as symbols": (["--example-encoding", "linear"], 1, "symbols need 'embedding'"),
    "unknown device": (["--device", "gpu0"], 1, "not a device"),
    "other device": (["--device", "meta"], 1, "not supported"),
    "threads": (["--threads", "0"], 1, "--threads 0"),
    "workers": (["--num-workers", "-1"], 1, "--num-workers -1"),
    "no configuration": (["--config", "configs/icl/none.py"], 1, "no such configuration file"),
    "no run to resume": (["--resume"], 1, "holds no run to resume"),
}
#: a configuration file's content -> what the line must say
FILES = {
    "unknown key": ("def get_config(): return {'sede': 1}", "did you mean 'seed'"),
    "nested unknown key": (
        "def get_config(): return {'training': {'batchsize': 1}}",
        "did you mean 'batch_size'",
    ),
    "no function": ("x = 1", "has no get_config()"),
    "syntax": ("def get_config(:", "SyntaxError"),
    "fails": ("def get_config(): return 1 / 0", "ZeroDivisionError"),
    "no mapping": ("def get_config(): return None", "mapping"),
    "list": ("def get_config(): return [1]", "mapping"),
    "an original without its part": (
        "def get_config(): return {'experiment_kwargs': {}}",
        "experiment_kwargs",
    ),
    "an object": (
        "def get_config(): return {'optimizer': {'kwargs': {'eps': object()}}}",
        "kwargs",
    ),
    "not a number": (
        "def get_config(): return {'optimizer': {'weight_decay': float('nan')}}",
        "weight_decay is nan",
    ),
}
#: extra flags of the sweep -> exit status, what the line must say
SWEEP = {
    "classes below the others": (["--class_counts", "20"], 1, "must exceed the 10 common"),
    "negative decay": (["--weight_decays", "0", "-1"], 1, "--weight_decays -1.0"),
    "decay not a number": (["--weight-decays", "nan"], 1, "--weight_decays nan"),
    "decay is text": (["--weight-decays", "x"], 2, "invalid float value: 'x'"),
    "doubled": (["--seeds", "1", "1"], 1, "give one or more different values"),
    "negative seed": (["--seeds", "-1"], 1, "seed is -1"),
    "no jobs": (["--jobs", "0"], 1, "--jobs 0"),
    "no evaluation": (["--max_eval_batches", "0"], 2, "at least 1 is expected"),
    "no preset": (["--preset", "fast"], 2, "invalid choice: 'fast'"),
    "unknown key": (["--set", "optimizer.lr=1"], 1, "unknown key 'optimizer.lr'"),
    "unknown optimizer": (["--set", "optimizer.name=adamm"], 1, "did you mean 'adam'"),
    "no configuration": (["--config-path", "none.py"], 1, "no such configuration file"),
}


def assert_one_line(ended, code, text):
    assert ended.code == code, ended.err
    assert len(ended.error_lines) == 1, ended.err
    assert text in ended.error_lines[0]
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("case", FLAGS)
def test_flags(case, train, tmp_path):
    flags, code, text = FLAGS[case]
    assert_one_line(train(tmp_path / "run", *flags), code, text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", FILES)
def test_configuration_files(case, train, tmp_path):
    content, text = FILES[case]
    file = tmp_path / "toy.py"
    file.write_text(content)
    ended = train(tmp_path / "run", "--config", str(file))
    assert_one_line(ended, 1, text)
    assert [p.name for p in tmp_path.iterdir() if p.name != "__pycache__"] == ["toy.py"]


@pytest.mark.parametrize("case", SWEEP)
def test_sweep(case, call_script, tmp_path):
    flags, code, text = SWEEP[case]
    symbolic = ["--config_path", "configs/icl/symbolic.py", "--class_counts", "30"]
    argv = [*symbolic, "--base_output_dir", tmp_path / "sweep", "--no-track", *flags]
    assert_one_line(call_script("run_adamw_sweep_torch", argv), code, text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_cuda_asked_for_and_absent(train, call_script, tmp_path):
    assert_one_line(train(tmp_path / "run", "--device", "cuda"), 1, "sees 0 CUDA devices")
    argv = ["--preset", "quick", "--device", "cuda", "--base_output_dir", tmp_path / "sweep"]
    assert_one_line(call_script("run_adamw_sweep_torch", argv), 1, "use --device cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "run"])
def test_output_that_cannot_be_a_directory(train, call_script, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    assert_one_line(train(file / below), 1, str(file))
    argv = ["--config_path", "configs/icl/symbolic.py", "--class_counts", "30", "--no-track"]
    ended = call_script("run_adamw_sweep_torch", [*argv, "--base_output_dir", file / below])
    assert_one_line(ended, 1, str(file))
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


@pytest.fixture
def omniglot_argv(tmp_path, monkeypatch):
    """Flags that read Omniglot from an empty data root; nothing cached."""
    monkeypatch.setenv("TRAINRIG_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRAINRIG_DATA_DIR", raising=False)
    pytorch_port.data.inputs._bank.cache_clear()
    pytorch_port.data.inputs._prepared.cache_clear()
    root = tmp_path / "data"
    (root / "omniglot-py").mkdir(parents=True)
    images = ["--example-type", "omniglot", "--source", "omniglot", "--downsample"]
    return root, [*images, "--example-encoding", "linear", "--data-dir", str(root)]


def write_zips(root, damage):
    for part, number in (("images_background", 1), ("images_evaluation", 965)):
        path = root / "omniglot-py" / f"{part}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            name = f"{part}/Latin/character01/{number:04d}_01.png"
            archive.writestr(name, b"no picture at all" * 50)
        if damage == "truncated":
            path.write_bytes(path.read_bytes()[:200])
        elif damage == "not a zip":
            path.write_bytes(b"<html>not found</html>")
        elif damage == "empty":
            path.write_bytes(b"")


@pytest.mark.parametrize("damage", ["missing", "truncated", "not a zip", "empty", "no pictures"])
def test_omniglot_files(train, call_script, tmp_path, omniglot_argv, tree_hash, damage):
    root, flags = omniglot_argv
    if damage != "missing":
        write_zips(root, damage)
    before = tree_hash(tmp_path)
    ended = train(tmp_path / "run", *flags)
    assert_one_line(ended, 1, "images_background.zip")
    expected = "--download" if damage == "missing" else "964 characters"
    assert expected in ended.err
    if damage == "missing":
        argv = ["--no-track", "--data-dir", root, "--base_output_dir", tmp_path / "sweep"]
        ended = call_script("run_adamw_sweep_torch", argv)
        assert_one_line(ended, 1, "--preset quick")
    assert tree_hash(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def unfinished(train, path):
    """Make a run whose status does not say that it is finished."""
    assert train(path).code == 0
    (path / "status.json").unlink()


def test_another_configuration_is_refused_with_the_difference(train, tmp_path, tree_hash):
    unfinished(train, tmp_path)
    before = tree_hash(tmp_path)
    ended = train(tmp_path, "--learning-rate", "0.5", "--num-layers", "3")
    assert_one_line(ended, 1, "optimizer.max_lr: 0.01 -> 0.5; transformer.num_layers: 2 -> 3")
    assert "--overwrite" in ended.err
    assert tree_hash(tmp_path) == before


@pytest.mark.parametrize("damage", ["weights.pt", "state.pt", "manifest.json"])
def test_no_valid_checkpoint_left(train, tmp_path, tree_hash, damage):
    unfinished(train, tmp_path)
    for _, path in list_checkpoints(tmp_path / LATEST):
        (path / damage).write_bytes((path / damage).read_bytes()[:-7])
    before = tree_hash(tmp_path)
    ended = train(tmp_path)
    assert_one_line(ended, 1, "holds no valid checkpoint")
    assert damage in ended.err
    assert tree_hash(tmp_path) == before


def replace_newest(path, **changes):
    step, newest = list_checkpoints(path / LATEST)[-1]
    checkpoint = load_checkpoint(newest)
    (newest / "manifest.json").unlink()
    state = {**checkpoint.state, **changes.get("state", {})}
    save_checkpoint(path / LATEST, step, changes.get("weights", checkpoint.weights), state)


def test_a_checkpoint_of_another_architecture_names_the_parameters(train, tmp_path, tree_hash):
    run, other = tmp_path / "run", tmp_path / "other"
    unfinished(train, run)
    assert train(other, "--num-layers", "3").code == 0
    foreign = load_checkpoint(list_checkpoints(other / LATEST)[-1][1])
    replace_newest(run, weights=foreign.weights)
    before = tree_hash(run)
    ended = train(run)
    assert_one_line(ended, 1, "belongs to another model")
    assert "layers.2" in ended.err or "blocks.2" in ended.err or ".2." in ended.err
    assert tree_hash(run) == before


@pytest.mark.parametrize(
    "state",
    [
        {"optimizer": {}},
        {"optimizer": None},
        {"rng": {}},
        {"rng": {"python": (3, (1, 2), None), "numpy": 1, "torch": 2, "cuda": []}},
        {"log_sizes": None},
        {"log_sizes": {"progress.txt": "x"}},
        {"log_sizes": {"progress.txt": 10**9, "metrics.jsonl": 10**9}},
        {"latest": 3},
        {"elapsed": "long"},
    ],
)
def test_a_checkpoint_with_a_foreign_state(train, tmp_path, tree_hash, state):
    unfinished(train, tmp_path)
    replace_newest(tmp_path, state=state)
    before = tree_hash(tmp_path)
    ended = train(tmp_path)
    assert ended.code == 1, ended.err
    assert len(ended.error_lines) == 1
    assert "step_12" in ended.err or "the checkpoint was saved after" in ended.err
    assert tree_hash(tmp_path) == before
