"""Every flag that reaches a run, with one process and with two: both end well, with equal files.

Two jobs are two spawned processes, so whatever a run needs must survive the way there, loading
processes included.
"""

from __future__ import annotations

import json

import pytest

from deepobs.pytorch.runners.smoke import write_generated_data

ICL = """
    --config_path {config} --device cpu --set transformer.num_layers=1
    --set transformer.num_heads=2 --set embedding.emb_dim=16 --set training.batch_size=4
    --set training.save_interval=2 --set evaluation.batch_size=4
"""
CONFIG = """
def get_config():
    return {
        "data": {"example_type": "symbolic", "symbolic_config": {"dataset_size": 1623}},
        "embedding": {"example_encoding": "embedding"},
        "optimizer": {"max_lr": 1e-2, "warmup_steps": 5},
    }
"""
SWEEP = ICL + "--weight_decays 0 0.1 --training_steps 4 --class_counts 12 --max_eval_batches 1"
SWEEP += " --n_common_classes 2 --n_holdout_classes 4 --base-output-dir {folder}"
FIGURE = ICL + "--class-counts 25 30 --max-steps 4 --eval-batches 1 --output-dir {folder}"
PTYCHO = """
    --accelerator cpu --quiet --nepochs 1 --batch_size 4 --n_groups 16 --gridsize 1
    --n_filters_scale 1 --train_data_file {scan} --output_dir {folder} --seeds 0 1
"""

IMAGES = """
def get_config():
    return {
        "embedding": {"example_encoding": "linear", "emb_dim": 16},
        "transformer": {"num_layers": 1, "num_heads": 2},
        "training": {"batch_size": 4, "save_interval": 2},
        "evaluation": {"batch_size": 4},
    }
"""

CASES = {
    "weight decay, vectorized": (
        "run_adamw_sweep_torch",
        f"{SWEEP} --sampler vectorized --num-workers 1 --no-track --threads 1",
    ),
    "weight decay, exact": (
        "run_adamw_sweep_torch",
        f"{SWEEP} --sampler exact --num-workers 1 --tracker tensorboard --skip-completed",
    ),
    "class counts, device": (
        "run_figure3a_torch",
        f"{FIGURE} --sampler device --num-workers 2 --no-track --eval-interval 2 --batch-size 2"
        " --optimizer sgd --panel b",
    ),
    "weight decay, packs of images": (
        "run_adamw_sweep_torch",
        """
        --config_path {images} --device cpu --weight_decays 0 0.1 --training_steps 2 --seeds 0 1
        --class_counts 12 --n_common_classes 2 --n_holdout_classes 4 --max_eval_batches 1
        --source synthetic --downsample --pack 2 --force-engine-change --no-track
        --l2_modes decoupled --base-output-dir {folder} --overwrite --data-dir {data}
        """,
    ),
    "reproduction": (
        "reproduce_published",
        """
        --preset quick --max-steps 2 --device cpu --no-track --source synthetic --num-workers 1
        --sampler exact --figures 2 --output-dir {folder} --threads 1
        --set training.batch_size=4 --set training.eval_interval=2 --set evaluation.batches=1
        --set evaluation.batch_size=8 --set embedding.emb_dim=16 --set transformer.num_layers=1
        """,
    ),
    "cifar, packs": (
        "sweep_optimizers",
        """
        --config configs/optimizer_quality/base_config.yaml --output-dir {folder} --name s
        --dataset synthetic --tracker tensorboard --optimizers sgd adamw --lrs 0.1 0.01 --seeds 0
        --num-epochs 1 --set model=resnet8_6n2 --set batch_size=100 --set train_items=200 --pack 2
        --device cpu --data-dir {data} --force-engine-change --overwrite
        """,
    ),
    "cifar, torchvision": (
        "sweep_optimizers",
        """
        --config configs/optimizer_quality/base_config.yaml --output-dir {folder} --name s
        --dataset synthetic --no-track --optimizers sgd=0.1,0.01 --seeds 0 --num-epochs 1
        --set model=resnet8_6n2 --set batch_size=100 --set train_items=200 --threads 1
        --set pipeline=torchvision --set num_workers=1
        """,
    ),
    "deepobs": (
        "tune_deepobs",
        """
        mnist_mlp --optimizer Adam --grid lr=1e-3,1e-2 --seeds 1 -N 1 --bs 20 --wd 1e-4 --threads 1
        --train_log_interval 2 --again --metric test_losses --mode final
        --data_dir {data} --output_dir {folder}
        """,
    ),
    "deepobs, random": (
        "tune_deepobs",
        """
        mnist_mlp --optimizer SGD --search random --trials 2 --range lr=1e-3:1e-1 --seeds 1 -N 1
        --bs 20 --linear lr --data_dir {data} --output_dir {folder}
        """,
    ),
    "deepobs, packs": (
        "tune_deepobs",
        """
        mnist_mlp --optimizer Momentum --grid lr=1e-3,1e-2 --hp momentum=0.9 --seeds 1 2 -N 1
        --bs 20 --pack 2 --optimizer-name Mine --mode best --data_dir {data} --output_dir {folder}
        """,
    ),
    "ensemble": (
        "ensemble_ptycho",
        f"{PTYCHO} --num_workers 1 --threads 1 --scheduler Exponential --mapped",
    ),
    "ensemble, refined": (
        "ensemble_ptycho",
        PTYCHO
        + """
        --optimizer sgd --momentum 0.9 --weight_decay 1e-4 --gradient_clip_val 1
        --learning-rate 1e-4 --accumulate-grad-batches 2 --overlap-frames 2
        --early-stop-patience 3 --probe_trainable --checkpoint-save-top-k 1
        --inference-batch-size 4 --n_images 12
        --amp_activation swish --refine 1 --refine-batch-size 4 --learn-probe
        --learn-positions --probe-modes 2
        --preview-every-epochs 1 --overwrite
        """,
    ),
    "ensemble, other losses": (
        "ensemble_ptycho",
        PTYCHO
        + """
        --adam_beta1 0.8 --adam_beta2 0.99 --deterministic --disable_mlflow --logger none
        --scheduler WarmupCosine --lr_warmup_epochs 1 --lr_min_ratio 0.2
        --gradient_clip_val 1 --gradient_clip_algorithm agc --n_subsample 20 --subsample_seed 3
        --neighbor_count 4 --sequential_sampling --nphotons 1e5 --torch_loss_mode mae
        --test_data_file {scan} --refine 1 --refine-loss poisson --refine-smoothness 1e-3
        --learn-background --probe_scale 3 --no-object_big --precision 32-true --devices 1
        """,
    ),
}
#: Cases whose flags decide numbers in a way that other cases have tried with two jobs.
SLOW = ("cifar, torchvision", "ensemble, refined", "ensemble, other losses")
#: What depends on the clock or on the way of the run.
VOLATILE = ("timing", "timestamp", "seconds")


def numbers(folder):
    """Return the rows of every run's metrics, and the results of DeepOBS, below a folder."""
    found = {}
    for file in sorted([*folder.rglob("metrics.jsonl"), *folder.rglob("logs/metrics.csv")]):
        found[file.relative_to(folder)] = file.read_text()
    for file in sorted(folder.rglob("random_seed__*.json")):
        content = json.loads(file.read_text())
        found[file.parent.name, file.name[:15]] = {
            key: value for key, value in content.items() if key not in VOLATILE
        }
    return found


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in CASES],
)
def test_one_job_and_two_give_the_same(case, call_script, tmp_path, toy_scan_file):
    script, words = CASES[case]
    data, found = tmp_path / "data", []
    write_generated_data(data, examples=160)
    (tmp_path / "toy.py").write_text(CONFIG)
    (tmp_path / "images.py").write_text(IMAGES)
    for jobs in (1, 2):
        folder = tmp_path / f"jobs{jobs}"
        flags = words.format(
            folder=folder,
            data=data,
            scan=toy_scan_file,
            config=tmp_path / "toy.py",
            images=tmp_path / "images.py",
        ).split()
        ended = call_script(script, [*flags, "--jobs", str(jobs)])
        assert ended.code == 0, ended.err
        found.append(numbers(folder))
    assert len(found[0]) >= 2
    assert found[0] == found[1]
