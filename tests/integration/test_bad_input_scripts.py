"""Every script, given what it cannot use: one clear line, status 1 or 2, nothing changed.

In the arguments ``{new}`` is a path that does not exist and must not exist afterwards, ``{bad}``
the folder of unusable files below, and ``{runs}`` a folder that is no run. ``test_bad_input.py``
has the cases of in-context learning in more depth.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import numpy as np
import pytest

RUN = "run_experiment --dataset synthetic --num-epochs 1 --no-track --set results_dir={new}"
SWEEP = "sweep_optimizers --dataset synthetic --num-epochs 1 --no-track --output-dir {new}"
RUNTIME = "estimate_deepobs_runtime"
DEEPOBS = "run_deepobs quadratic_deep --lr 0.1 -N 1 --quiet --output_dir {new}"
TRAIN = "train_ptycho --quiet --nepochs 1 --output_dir {new} --train_data_file"
INFER = "infer_ptycho --quiet --refine 1 --output_dir {new} --test_data"
FIGURE3A = "run_figure3a_torch --config-path configs/icl/symbolic.py --no-track --output-dir {new}"

#: command line, exit status, what the line must say
CASES = [
    # optimizer quality: one run
    (f"{RUN} --seeed 1", 2, "did you mean '--seed'"),
    (f"{RUN} --config {{bad}}/none.yaml", 1, "none.yaml"),
    (f"{RUN} --config {{bad}}/list.yaml", 1, "list.yaml"),
    (f"{RUN} --config {{bad}}/torn.yaml", 1, "torn.yaml"),
    (f"{RUN} --config {{bad}}/unknown.yaml", 1, "did you mean 'seed'"),
    (f"{RUN} --config {{bad}}/binary.yaml", 1, "binary.yaml"),
    (f"{RUN} --config {{bad}}", 1, "bad"),
    (f"{RUN} --optimizer adamm", 1, "did you mean 'adam'"),
    (f"{RUN} --optimizer torch.nn.Linear", 1, "not a subclass"),
    (f"{RUN} --optimizer no_such.Thing", 1, "no_such"),
    (f"{RUN} --set optimizer.momentun=1", 1, "did you mean 'momentum'"),
    (f"{RUN} --lr fast", 1, "fast"),
    (f"{RUN} --lr -1", 1, "lr"),
    (f"{RUN} --lr nan", 1, "nan"),
    (f"{RUN} --seed -1", 1, "seed is -1"),
    (f"{RUN} --seed x", 2, "invalid int value: 'x'"),
    (f"{RUN} --num-epochs 0", 1, "num_epochs is 0"),
    (f"{RUN} --num-workers -1", 1, "num_workers is -1"),
    (f"{RUN} --dataset cifar11", 1, "did you mean 'cifar10"),
    (f"{RUN} --dataset cifar10 --data-dir {{bad}}", 1, "cifar-10-batches-py"),
    (f"{RUN} --pipeline torchvison", 1, "accepted: resident, torchvision"),
    (f"{RUN} --precision fp8", 1, "fp8"),
    (f"{RUN} --device gpu", 1, "gpu"),
    (f"{RUN} --threads 0", 1, "0"),
    (f"{RUN} --set model=resnet9", 1, "did you mean 'resnet"),
    (f"{RUN} --set num_classes=1", 1, "num_classes"),
    (f"{RUN} --set num_classes=7", 1, "7"),
    (f"{RUN} --set train_val_split=1", 1, "train_val_split is 1"),
    (f"{RUN} --set train_val_split=0", 1, "train_val_split is 0"),
    (f"{RUN} --set train_val_split=half", 1, "half"),
    (f"{RUN} --set batch_size=0", 1, "batch_size is 0"),
    (f"{RUN} --set eval_every=-1", 1, "eval_every is -1"),
    (f"{RUN} --set batchsize=1", 1, "did you mean 'batch_size'"),
    (f"{RUN} --set batch_size", 1, "'='"),
    # optimizer quality: sweep and comparison
    (f"{SWEEP}", 2, "--optimizers"),
    (f"{SWEEP} --optimizers sgd=fast", 1, "fast"),
    (f"{SWEEP} --optimizers sgd", 1, "sgd"),
    (f"{SWEEP} --optimizers sgdd=0.1", 1, "did you mean 'sgd'"),
    (f"{SWEEP} --optimizers sgd=0.1 sgd=0.1", 1, "sgd"),
    (f"{SWEEP} --optimizers sgd=-1", 1, "-1"),
    (f"{SWEEP} --optimizers sgd=0.1 --seeds 0 0", 1, "0"),
    (f"{SWEEP} --optimizers sgd=0.1 --seeds -1", 1, "-1"),
    (f"{SWEEP} --optimizers sgd=0.1 --jobs 0", 1, "at least 1"),
    (f"{SWEEP} --optimizers sgd=0.1 --threads 0", 2, "at least 1"),
    (f"{SWEEP} --optimizers sgd=0.1 --set modle=x", 1, "did you mean 'model'"),
    ("compare_solutions", 2, "runs"),
    ("compare_solutions {new} --output-dir {new}", 1, "new"),
    ("compare_solutions {runs} --output-dir {new}", 1, "runs"),
    ("compare_solutions {runs} --output-dir {new} --only hesian", 1, "did you mean 'hessian'"),
    ("compare_solutions {runs} --output-dir {new} --n-points 1", 1, "n_points"),
    # DeepOBS: one run
    ("run_deepobs", 2, "--smoke"),
    (f"{DEEPOBS} --learning-rat 1", 2, "did you mean '--learning"),
    ("run_deepobs mnist_mpl --lr 0.1 --output_dir {new}", 1, "did you mean 'mnist_mlp'"),
    ("run_deepobs --smoke mnist_mpl", 1, "did you mean 'mnist_mlp'"),
    (f"{DEEPOBS} --optimizer Adamm", 1, "did you mean 'adam'"),
    (f"{DEEPOBS} --optimizer os.path", 1, "os"),
    (f"{DEEPOBS} --optimizer no_such.Thing", 1, "no_such"),
    (f"{DEEPOBS} --hp momentumm=0.9", 1, "did you mean 'momentum'"),
    (f"{DEEPOBS} --hp momentum", 1, "'='"),
    (f"{DEEPOBS} --hp momentum=high", 1, "high"),
    (f"{DEEPOBS} --lr fast", 2, "invalid float value: 'fast'"),
    (f"{DEEPOBS} --lr -1", 1, "-1"),
    (f"{DEEPOBS} --lr nan", 1, "nan"),
    (f"{DEEPOBS} --bs 0", 1, "0"),
    (f"{DEEPOBS} --bs 100000", 1, "100000"),
    (f"{DEEPOBS} -N -1", 1, "-1"),
    (f"{DEEPOBS} --wd -0.1", 1, "-0.1"),
    (f"{DEEPOBS} -r -1", 1, "-1"),
    (f"{DEEPOBS} --l2 maybe", 2, "invalid choice: 'maybe'"),
    (f"{DEEPOBS} --lr_sched_epochs 1 2 --lr_sched_factors 0.1", 1, "equal length"),
    (f"{DEEPOBS} --lr_sched_epochs 1", 1, "lr_sched"),
    (f"{DEEPOBS} --lr_sched_epochs 2 1 --lr_sched_factors 0.1 0.1", 1, "increasing"),
    (f"{DEEPOBS} --train_log_interval 0", 1, "train_log_interval"),
    (f"{DEEPOBS} --device gpu", 1, "gpu"),
    (f"{DEEPOBS} --dtype float16", 2, "invalid choice: 'float16'"),
    (f"{DEEPOBS} --threads 0", 1, "threads"),
    (f"{DEEPOBS} --compat original", 2, "invalid choice: 'original'"),
    (f"{DEEPOBS} --checkpoint_interval_s -1", 1, "-1"),
    ("run_deepobs mnist_mlp --lr 0.1 --data_dir {bad} --output_dir {new}", 1, "mnist"),
    ("run_deepobs fmnist_mlp --lr 0.1 --data_dir {new} --output_dir {new}", 1, "new"),
    ("run_deepobs cifar10_3c3d --lr 0.1 --data_dir {bad} --output_dir {new}", 1, "cifar"),
    ("run_deepobs svhn_3c3d --lr 0.1 --data_dir {bad} --output_dir {new}", 1, "svhn"),
    ("run_deepobs tolstoi_char_rnn --lr 1 --data_dir {bad} --output_dir {new}", 1, "tolstoi"),
    ("run_deepobs imagenet_vgg16 --lr 1 --data_dir {bad} --output_dir {new}", 1, "imagenet"),
    # DeepOBS: figures, data, runtime
    ("plot_deepobs", 2, "path"),
    ("plot_deepobs {new} --output {new}", 1, "new"),
    ("plot_deepobs {bad}/a.npz --output {new}", 1, "a.npz"),
    ("plot_deepobs {runs} --output {new}", 1, "no results"),
    ("plot_deepobs {runs} --mode finale --output {new}", 2, "invalid choice: 'finale'"),
    ("trainrig.command data get mnst --data-dir {new}", 2, "did you mean 'mnist'"),
    ("trainrig.command data get --data-dri {new} mnist", 2, "did you mean '--data-dir'"),
    ("trainrig.command data get mnist --source {new}", 1, "no such folder"),
    ("trainrig.command data verify --data-dir {runs}", 1, "no data set in it"),
    ("estimate_deepobs_runtime", 2, "--optimizer"),
    (f"{RUNTIME} --optimizer Adamm", 1, "did you mean 'adam'"),
    (f"{RUNTIME} --optimizer Adam --test_problem mnist_mpl", 1, "'mnist_mlp'"),
    (f"{RUNTIME} --optimizer Adam --num_runs 0", 1, "0"),
    (
        f"{RUNTIME} --optimizer Adam --hp eta=1 --test_problem quadratic_deep",
        1,
        "eta",
    ),
    (f"{RUNTIME} --optimizer Adam -N 0 --test_problem quadratic_deep", 1, "0"),
    # ptychography: training
    ("train_ptycho --output_dir {new}", 1, "--train_data_file"),
    (f"{TRAIN} {{new}}.npz", 1, "new.npz"),
    (f"{TRAIN} {{bad}}/empty.npz", 1, "empty.npz"),
    (f"{TRAIN} {{bad}}/torn.npz", 1, "torn.npz"),
    (f"{TRAIN} {{bad}}/text.npz", 1, "text.npz"),
    (f"{TRAIN} {{bad}}/pickled.npz", 1, "pickled.npz"),
    (f"{TRAIN} {{bad}}/a.npz", 1, "diff3d"),
    (f"{TRAIN} {{bad}}/lengths.npz", 1, "xcoords"),
    (f"{TRAIN} {{bad}}/nan.npz", 1, "nan.npz"),
    (f"{TRAIN} {{bad}}/negative.npz", 1, "negative.npz"),
    (f"{TRAIN} {{bad}}/dead.npz", 1, "dead.npz"),
    (f"{TRAIN} {{bad}}/oblong.npz", 1, "oblong.npz"),
    (f"{TRAIN} {{bad}}/nan_positions.npz", 1, "nan_positions.npz"),
    (f"{TRAIN} {{bad}}/probe.npz", 1, "probe"),
    (f"{TRAIN} {{bad}}", 1, "bad"),
    (f"{TRAIN} {{bad}}/good.npz --N 63", 1, "63"),
    (f"{TRAIN} {{bad}}/good.npz --N 128", 1, "128"),
    (f"{TRAIN} {{bad}}/good.npz --gridsize 0", 1, "gridsize"),
    (f"{TRAIN} {{bad}}/good.npz --gridsize 4", 1, "gridsize"),
    (f"{TRAIN} {{bad}}/good.npz --model_type supervised", 1, "supervised"),
    (f"{TRAIN} {{bad}}/good.npz --model_type magic", 1, "magic"),
    (f"{TRAIN} {{bad}}/good.npz --batch_size 0", 1, "batch_size"),
    (f"{TRAIN} {{bad}}/good.npz --batch_size x", 2, "invalid int value: 'x'"),
    (f"{TRAIN} {{bad}}/good.npz --nphotons -1", 1, "nphotons"),
    (f"{TRAIN} {{bad}}/good.npz --logger mlflow", 1, "csv"),
    (f"{TRAIN} {{bad}}/good.npz --amp_activation tan", 1, "amp_activation"),
    (f"{TRAIN} {{bad}}/good.npz --lr -1", 1, "--learning-rate"),
    (f"{TRAIN} {{bad}}/good.npz --seed -1", 1, "seed"),
    (f"{TRAIN} {{bad}}/good.npz --accelerator abacus", 1, "abacus"),
    (f"{TRAIN} {{bad}}/good.npz --config {{bad}}/unknown.yaml", 1, "did you mean"),
    (f"{TRAIN} {{bad}}/good.npz --config {{bad}}/torn.yaml", 1, "torn.yaml"),
    (f"{TRAIN} {{bad}}/good.npz --config {{bad}}/list.yaml", 1, "list.yaml"),
    (f"{TRAIN} {{bad}}/good.npz --backend tensorflow", 1, "ptycho"),
    (f"{TRAIN} {{bad}}/good.npz --backend numpy", 1, "numpy"),
    (f"{TRAIN} {{bad}}/good.npz --grid-size 2", 2, "did you mean '--gridsize'"),
    (f"{TRAIN} {{bad}}/good.npz --test_data_file {{new}}.npz", 1, "new.npz"),
    (f"{TRAIN} {{bad}}/good.npz --n_groups 0", 1, "n_groups"),
    (f"{TRAIN} {{bad}}/good.npz --refine -1", 1, "refine"),
    ("ensemble_ptycho --output_dir {new}", 2, "--seeds"),
    ("ensemble_ptycho --output_dir {new} --seeds 0 1", 1, "--train_data_file"),
    (f"{TRAIN.replace('train', 'ensemble', 1)} {{bad}}/good.npz --seeds 3", 1, "--seeds 3"),
    (f"{TRAIN.replace('train', 'ensemble', 1)} {{bad}}/a.npz --seeds 0 1", 1, "a.npz"),
    # ptychography: reconstruction
    (f"{INFER} {{bad}}/good.npz --launcher slurm", 1, "--uncertainty N"),
    ("infer_ptycho --output_dir {new}", 2, "--test_data"),
    ("infer_ptycho --test_data {bad}/good.npz --output_dir {new}", 1, "--model_path"),
    (f"{INFER} {{new}}.npz", 1, "new.npz"),
    (f"{INFER} {{bad}}/good.npz --model_path {{new}}", 1, "new"),
    (f"{INFER} {{bad}}/good.npz --model_path {{runs}}", 1, "runs"),
    (f"{INFER} {{bad}}/good.npz --model_path {{bad}}/text.npz", 1, "text.npz"),
    (f"{INFER} {{bad}}/good.npz --model_path {{bad}}/foreign.h5.zip", 1, "foreign.h5.zip"),
    (f"{INFER} {{bad}}/good.npz --model_path {{bad}}/pickled.h5.zip", 1, "pickled.h5.zip"),
    (f"{INFER} {{bad}}/good.npz --model_path {{bad}}/slip.h5.zip", 1, "slip.h5.zip"),
    (f"{INFER} {{bad}}/good.npz --model_path {{bad}}/pickled.ckpt", 1, "pickled.ckpt"),
    (f"{INFER} {{bad}}/good.npz --refine-loss cosine", 1, "cosine"),
    (f"{INFER} {{bad}}/good.npz --stream 0", 2, "0"),
    (f"{INFER} {{bad}}/good.npz --middle-trim -4", 2, "-4"),
    (f"{INFER} {{bad}}/good.npz --backend numpy", 1, "numpy"),
    (f"{INFER} {{bad}}/good.npz --debug_dump {{new}}", 1, "--debug_dump"),
    (f"{INFER} {{bad}}/good.npz --config {{bad}}/unknown.yaml", 1, "unknown.yaml"),
    (f"{INFER} {{bad}}/good.npz --refine-batch-size 0", 1, "batch"),
    (f"{INFER} {{bad}}/good.npz --probe-modes 0", 1, "modes"),
    (f"{INFER} {{bad}}/good.npz --n_subsample 0", 1, "n_subsample"),
    (f"{INFER} {{bad}}/good.npz --seed -1", 1, "seed"),
    ("evaluate_ptycho {new}.npz --truth {bad}/good.npz --output-dir {new}", 1, "new.npz"),
    ("evaluate_ptycho {bad}/a.npz --truth {bad}/good.npz --output-dir {new}", 1, "a.npz"),
    ("evaluate_ptycho {bad}/torn.npz --truth {bad}/good.npz --output-dir {new}", 1, "npz"),
    ("evaluate_ptycho {bad}/a.npz", 2, "--truth"),
    # ptychography: simulation and conversion
    ("simulate_ptycho", 2, "output"),
    ("simulate_ptycho {new}.npz --size 60", 1, "60"),
    ("simulate_ptycho {new}.npz --object cat", 1, "cat"),
    ("simulate_ptycho {new}.npz --scan zigzag", 1, "zigzag"),
    ("simulate_ptycho {new}.npz --photons -1", 1, "photons"),
    ("simulate_ptycho {new}.npz --photons nan", 1, "photons"),
    ("simulate_ptycho {new}.npz --rows 0", 1, "rows"),
    ("simulate_ptycho {new}.npz --modes 0", 1, "modes"),
    ("simulate_ptycho {new}.npz --step-px -2", 1, "--step-px"),
    ("simulate_ptycho {new}.npz --seed -1", 1, "seed"),
    ("simulate_ptycho {bad}/good.npz/below.npz", 1, "good.npz"),
    ("convert_ptycho {new} {new}.npz", 1, "new"),
    ("convert_ptycho {bad}/text.npz {new}.npz", 1, "text.npz"),
    ("convert_ptycho {bad}/text.cxi {new}.npz", 1, "text.cxi"),
    ("convert_ptycho {bad}/torn.npz.bz2 {new}.npz", 1, "torn.npz.bz2"),
    ("convert_ptycho {runs} {new}.npz", 1, "runs"),
    ("convert_ptycho {bad}/good.npz {new}.npz --every 0", 1, "every"),
    ("convert_ptycho {bad}/good.npz {new}.npz --object {bad}/good.npz", 1, "--to-ptychodus"),
    (
        "convert_ptycho {bad}/good.npz {new} --to-ptychodus --object {bad}/good.npz",
        1,
        "missing object",
    ),
    # in-context learning: the other scripts
    (f"{FIGURE3A} --class-counts 20", 1, "20"),
    (f"{FIGURE3A} --class-counts x", 2, "invalid int value: 'x'"),
    (f"{FIGURE3A} --panel c", 2, "invalid choice: 'c'"),
    (f"{FIGURE3A} --class-counts 30 --seeds 1 1", 1, "seeds"),
    (f"{FIGURE3A} --class-counts 30 --jobs 0", 1, "jobs"),
    (f"{FIGURE3A} --class-counts 30 --max-steps 0", 1, "training_steps is 0"),
    (f"{FIGURE3A} --class-counts 30 --optimizer adamm", 1, "did you mean 'adam'"),
    ("plot_figure3_adamw --output_dir {new}", 2, "--runs_csv"),
    ("plot_figure3_adamw --runs_csv {new}.csv --output_dir {new}", 1, "new.csv"),
    ("plot_figure3_adamw --runs_csv {bad}/torn.csv --output_dir {new}", 1, "torn.csv"),
    ("plot_figure3_adamw --metrics_csv {bad}/torn.csv --output_dir {new}", 1, "torn.csv"),
    ("plot_figure3_adamw --metrics_csv {bad}/binary.yaml --output_dir {new}", 1, "binary.yaml"),
    ("pytorch_regression --bounds {new}.csv --output-dir {new} --quiet", 1, "new.csv"),
    ("pytorch_regression --bounds {bad}/torn.csv --output-dir {new} --quiet", 1, "torn.csv"),
    ("pytorch_regression --jobs 0 --output-dir {new} --quiet", 1, "jobs"),
    # tools
    ("verify_parity", 2, "SYSTEM"),
    ("verify_parity icll --golden {runs}", 2, "invalid choice: 'icll'"),
    ("verify_parity icl --golden {new}", 1, "new"),
    ("verify_parity deepobs --golden {new}", 1, "new"),
    ("verify_parity ptycho --golden {new}", 1, "new"),
    ("verify_parity deepobs --golden {bad}/a.npz", 1, "a.npz"),
    ("benchmark", 2, "required: system"),
    ("benchmark icll", 2, "invalid choice: 'icll'"),
    ("benchmark icl --cases symbollic", 1, "symbol"),
    ("benchmark icl --repeats 0", 1, "repeats"),
    ("measure_deepobs overheads", 2, "invalid choice: 'overheads'"),
]


class Executed:
    """Unpickling this would write a file."""

    def __reduce__(self):
        return (open, ("executed", "w"))


def scan(**changes) -> dict[str, np.ndarray]:
    """Return a small canonical scan, with some of its arrays replaced; ``None`` leaves one out."""
    rng = np.random.default_rng(0)
    arrays = {
        "diff3d": rng.random((6, 64, 64), dtype=np.float32) + 0.5,
        "xcoords": np.arange(6.0) * 8,
        "ycoords": np.arange(6.0) % 3 * 8,
        "probeGuess": np.ones((64, 64), np.complex64),
    } | changes
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """A folder of files that no script can use, and one small scan that is in order."""
    folder = tmp_path_factory.mktemp("files") / "bad"
    folder.mkdir()
    texts = {
        "list.yaml": "- 1\n- 2\n",
        "torn.yaml": "seed: [1, 2\n",
        "unknown.yaml": "sede: 1\n",
        "torn.csv": "one,two\n1\n",
        "text.npz": "not an archive\n",
        "text.cxi": "not HDF5\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "empty.npz").write_bytes(b"")
    frames = scan()["diff3d"]
    spoiled = frames.copy()
    spoiled[2, 3, 4] = np.nan
    scans = {
        "good": scan(),
        "a": {"a": np.zeros(3)},
        "lengths": scan(xcoords=np.arange(5.0)),
        "nan": scan(diff3d=spoiled),
        "negative": scan(diff3d=frames - 1),
        "dead": scan(diff3d=np.zeros_like(frames)),
        "oblong": scan(diff3d=frames[:, :, :48]),
        "nan_positions": scan(xcoords=np.full(6, np.nan)),
        "probe": scan(probeGuess=np.ones((32, 32), np.complex64)),
    }
    for name, arrays in scans.items():
        np.savez(folder / f"{name}.npz", **arrays)
    np.savez(folder / "pickled.npz", diff3d=np.array([Executed()], dtype=object))
    content = (folder / "good.npz").read_bytes()
    (folder / "torn.npz").write_bytes(content[: len(content) // 2])
    (folder / "torn.npz.bz2").write_bytes(b"BZh91AY&SY" + content[:100])
    buffer = io.BytesIO()
    pickle.dump(Executed(), buffer)
    (folder / "pickled.ckpt").write_bytes(buffer.getvalue())
    for name, member in (("foreign", "x"), ("pickled", "params.dill"), ("slip", "../slipped")):
        with zipfile.ZipFile(folder / f"{name}.h5.zip", "w") as archive:
            archive.writestr(member, buffer.getvalue())
            archive.writestr("manifest.json", json.dumps({"version": "0", "models": [member]}))
    return folder


@pytest.mark.parametrize(("command", "code", "text"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_nothing_written(
    command, code, text, call_script, bad_files, tree_hash, tmp_path, monkeypatch
):
    for name in ("DEEPOBS_DATA_DIR", "TRAINRIG_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "note.txt").write_text("mine")
    before = tree_hash(bad_files.parent)
    script, *words = command.split()
    places = {"new": tmp_path / "new", "bad": bad_files, "runs": runs}
    ended = call_script(script, [word.format(**places) for word in words])
    assert ended.code == code, ended.err
    assert len(ended.error_lines) == 1, ended.err
    assert text in ended.error_lines[0]
    assert tree_hash(bad_files.parent) == before
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert [path.name for path in runs.iterdir()] == ["note.txt"]


def test_there_are_enough_cases():
    assert len(CASES) >= 150
    assert len({case[0] for case in CASES}) == len(CASES)
