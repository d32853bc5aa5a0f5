"""A packed sweep that is killed and started again ends bit-identical to an undisturbed one."""

from __future__ import annotations

import pytest

from trainrig.runs import LATEST

SCRIPT = "run_adamw_sweep_torch"
CONFIG = """
def get_config():
    return {
        "data": {
            "example_type": "symbolic", "symbolic_config": {"dataset_size": 1609},
            "generator_config": {"n_common_classes": 2, "n_holdout_classes": 4},
        },
        "embedding": {"example_encoding": "embedding", "emb_dim": 16},
        "transformer": {"num_layers": 1, "num_heads": 2, "dropout_prob": 0.1},
        "optimizer": {"name": "adamw", "max_lr": 1e-2, "warmup_steps": 5},
        "training": {
            "batch_size": 4, "log_interval": 3, "eval_interval": 6, "save_interval": 4,
        },
        "evaluation": {"batches": 1, "batch_size": 4},
    }
"""
#: Four runs, one of which diverges at the first row: its place in the pack stays.
NAMES = [f"class12_wd{tag}_seed{seed}_sum_squares" for tag in ("0", "1e+39") for seed in (0, 1)]
#: (point, n-th time): in the first run's checkpoint, between two runs' checkpoints, when one of two
#: has dropped its old one, between rows, and when one run's status is complete.
KILLS = [
    ("middle of a file of a checkpoint", 2),
    ("files fsynced, before rename", 2),
    ("renamed, before fsync of the directory", 1),
    ("rows durable, before checkpoint", 3),
    ("middle of a line of metrics.jsonl", 5),
    ("checkpoint done, before pruning and status", 2),
    ("checkpoint and pruning done, before status", 4),
]


@pytest.fixture(scope="module")
def argv(tmp_path_factory):
    """Return a function: folder -> a packed sweep."""
    config = tmp_path_factory.mktemp("config") / "toy.py"
    config.write_text(CONFIG)

    def words(folder):
        text = f"""
            --config_path {config} --base_output_dir {folder} --class_counts 12 --seeds 0 1
            --weight_decays 0 1e39 --l2_modes sum_squares --training_steps 12 --pack 4
            --device cpu --no-track --jobs 1
        """
        return text.split()

    return words


@pytest.fixture(scope="module")
def undisturbed(fork_server, argv, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    ended = fork_server.run(SCRIPT, argv(folder))
    assert ended.code == 0, ended.output
    return folder


def test_killed_again_and_again(fork_server, argv, undisturbed, assert_same, tmp_path):
    folder = tmp_path / "sweep"
    for point, n in KILLS:
        ended = fork_server.run(SCRIPT, argv(folder), point=point, n=n)
        assert ended.killed, (point, n, ended.output)
        assert ended.proof == point
    ended = fork_server.run(SCRIPT, argv(folder))
    assert ended.code == 0, ended.output
    for name in NAMES:
        if any((undisturbed / name / LATEST).iterdir()):
            assert_same(folder / name, undisturbed / name)
    for name in ("runs.csv", "manifest.json"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
