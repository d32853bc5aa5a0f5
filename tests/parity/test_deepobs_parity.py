"""Parity with recorded TensorFlow values, and proof that the checker notices wrong ports."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from deepobs.parity import numerics, run
from deepobs.pytorch import tf_ops, tf_weights
from deepobs.pytorch.testproblems import _families, _layers, _wrn
from deepobs.pytorch.testproblems.testproblem import TestProblem

BIG = ("cifar10_vgg16", "cifar100_vgg19", "imagenet_inception_v3")


@pytest.fixture(scope="module")
def golden(repo_root):
    return repo_root / "tests" / "parity" / "golden" / "deepobs"


@pytest.fixture
def part(golden, tmp_path):
    """Copy chosen files, and of forward.json chosen problems only."""

    def copy(*stems, problems=None):
        shutil.copy(golden / "meta.json", tmp_path)
        for stem in stems:
            for path in golden.glob(f"{stem}.*"):
                shutil.copy(path, tmp_path)
        if problems is not None:
            records = json.loads((golden / "forward.json").read_text())
            kept = {name: records[name] for name in problems}
            (tmp_path / "forward.json").write_text(json.dumps(kept))
            with np.load(golden / "forward.npz") as arrays:
                chosen = {k: arrays[k] for k in arrays.files if k.partition("__")[0] in kept}
            np.savez(tmp_path / "forward.npz", **chosen)
        return tmp_path

    return copy


def failures(report):
    return {(row.case, row.quantity) for row in report.failed}


def test_everything_but_the_big_networks_agrees(golden, part):
    problems = [n for n in json.loads((golden / "forward.json").read_text()) if n not in BIG]
    stems = [p.stem for p in golden.iterdir() if p.stem not in ("forward", "meta", "README")]
    report = run(part(*stems, problems=problems))
    assert report.exit_code == 0, report.table()
    assert len(report.rows) > 700


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG)
def test_big_networks_agree(part, name):
    report = run(part(problems=[name]))
    assert report.exit_code == 0, report.table()


def write_logistic_regression(folder, *, base, seed, batch_size):
    """Record a logistic regression with settings of its own, computed by NumPy alone."""
    r = np.random.RandomState(seed)
    x = r.uniform(0, 1, (batch_size, 28, 28, 1)).astype(np.float32).reshape(batch_size, -1)
    labels = r.randint(0, 10, batch_size)
    w = np.random.RandomState(base).standard_normal((784, 10)) * np.sqrt(1.5 / 784)
    b = 0.1 * np.random.RandomState(base + 1).standard_normal(10)
    w, b = w.astype(np.float32), b.astype(np.float32)
    logits = x.astype(np.float64) @ w + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    losses = -np.log(p[np.arange(batch_size), labels])
    delta = (p - np.eye(10)[labels]) / batch_size
    gradients = x.T @ delta, delta.sum(0)
    record = {
        "batch_size": batch_size,
        "labels": labels.tolist(),
        "x_sum": float(x.sum(dtype=np.float64)),
        "variables": [
            {
                "k": k,
                "name": f"dense/{name}",
                "shape": list(v.shape),
                "abs_sum": float(abs(v).sum()),
            }
            for k, (name, v) in enumerate({"kernel": w, "bias": b}.items())
        ],
        "phases": {
            "test": {
                "losses": losses.tolist(),
                "regularizer": 0.0,
                "mean_loss_plus_regularizer": losses.mean(),
                "accuracy": float((logits.argmax(1) == labels).mean()),
                "grad_l2_norms": [float(np.linalg.norm(g)) for g in gradients],
                "grad_first3": [g.ravel()[:3].tolist() for g in gradients],
            }
        },
    }
    (folder / "forward.json").write_text(json.dumps({"mnist_logreg": record}))
    np.savez(folder / "forward.npz", mnist_logreg__test__logits=logits.astype(np.float32))
    meta = json.loads((folder / "meta.json").read_text())
    meta["forward"] |= {"weight_seed_base": base, "input_seed": seed}
    (folder / "meta.json").write_text(json.dumps(meta))
    return meta


def test_another_batch_size_and_other_seeds_are_read_from_the_files(part):
    folder = part()
    meta = write_logistic_regression(folder, base=20000, seed=5, batch_size=7)
    report = run(folder)
    assert report.exit_code == 0, report.table()
    assert len(report.rows) >= 6
    exceptions = "meta.json/bounds/exceptions/"  # for cases that this directory does not have
    rest = [case for case, _ in report.skipped if not case.startswith(exceptions)]
    assert rest == []
    for name in ("weight_seed_base", "input_seed"):
        wrong = {**meta, "forward": {**meta["forward"], name: 1}}
        (folder / "meta.json").write_text(json.dumps(wrong))
        assert ("forward/mnist_logreg/test", "per-example losses") in failures(run(folder))


def test_recorded_results_without_their_input_are_checked(part):
    folder = part("preprocessing")
    with np.load(folder / "preprocessing.npz") as archive:
        arrays = dict(archive)
    arrays["mnist_test_x"] = arrays["mnist_test_x"] * np.float32(0.999)
    arrays["std_low"] = arrays["std_low"] + np.float32(0.001)
    arrays["tolstoi_test_first_y"] = np.roll(arrays["tolstoi_test_first_y"], 1, 1)
    np.savez(folder / "preprocessing.npz", **arrays)
    record = json.loads((folder / "preprocessing.json").read_text())
    record["svhn"]["train_eval_batches_bs7_size30"] = 5
    (folder / "preprocessing.json").write_text(json.dumps(record))
    assert {quantity for _, quantity in failures(run(folder))} == {
        "mnist_test_x are bytes over 255",
        "std_low is below the least deviation",
        "tolstoi: targets are one character later",
        "train_eval_batches_bs7_size30",
    }


def test_dropout_masks_are_prescribed_or_unchecked(part):
    folder = part(problems=["cifar100_allcnnc"])
    records = json.loads((folder / "forward.json").read_text())
    record = records["cifar100_allcnnc"]
    record["phases"] = {"train": record["phases"]["test"]}
    (folder / "forward.json").write_text(json.dumps(records))
    assert any("dropout" in reason for _, reason in run(folder).skipped)
    record["dropout_seed_base"] = 500
    (folder / "forward.json").write_text(json.dumps(records))
    report = run(folder)
    assert ("forward/cifar100_allcnnc/train", "per-example losses") in failures(report)
    assert not any("dropout" in reason for _, reason in report.skipped)


def test_nothing_checked_is_a_failure(part):
    report = run(part())
    assert report.exit_code == 1
    assert "nothing was checked" in report.table()


def test_foreign_files_are_listed(part):
    folder = part("two_d")
    (folder / "novelty.json").write_text("{}")
    report = run(folder)
    assert report.exit_code == 0
    assert ("novelty.json", "no check knows this file") in report.skipped


@pytest.mark.parametrize("missing", ["meta.json", "folder"])
def test_missing_directory_is_named(tmp_path, missing):
    folder = tmp_path if missing == "meta.json" else tmp_path / "absent"
    with pytest.raises(FileNotFoundError, match=r"meta\.json: missing"):
        run(folder)


@pytest.mark.parametrize("control", ["hessian_pt120", "second_instance"])
def test_wrong_hessians_fail(golden, part, monkeypatch, control):
    if control == "hessian_pt120":
        wrong = np.load(golden / "quadratic_deep.npz")["hessian_pt120"]
    else:
        generator = np.random.RandomState(42)
        for _ in range(2):  # one module-level stream: the second instance
            eigenvalues = np.concatenate(
                [generator.uniform(0, 1, 90), generator.uniform(30, 60, 10)]
            )
            from deepobs.pytorch.testproblems._quadratic import random_rotation

            rotation = random_rotation(100, generator)
        wrong = rotation.T @ np.diag(eigenvalues) @ rotation
        head = np.load(golden / "quadratic_deep.npz")["hessian_second_instance_head"]
        np.testing.assert_allclose(wrong[:5, :5], head, atol=1e-12)
    monkeypatch.setattr(numerics, "make_hessian", lambda: wrong)
    failed = failures(run(part("quadratic_deep")))
    assert ("quadratic_deep", "hessian") in failed
    assert any("is refused" in quantity for _, quantity in failed)


def test_symmetric_padding_fails(part, monkeypatch):
    def symmetric(size, kernel, stride):
        before, after = original(size, kernel, stride)
        return max(before, after), max(before, after)

    original = tf_ops.same_padding
    monkeypatch.setattr(tf_ops, "same_padding", symmetric)
    failed = {case for case, _ in failures(run(part("tf_ops")))}
    assert {"tf_ops/conv4", "tf_ops/conv5"} <= failed


@pytest.mark.parametrize("align_corners", [True, False])
def test_modern_resizing_fails(part, monkeypatch, align_corners):
    def resize(x, height, width):
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=align_corners)

    monkeypatch.setattr(tf_ops, "resize_bilinear", resize)
    failed = {case for case, _ in failures(run(part("tf_ops")))}
    assert {"tf_ops/resize22", "tf_ops/resize24", "tf_ops/resize25"} <= failed


def test_averaging_over_padding_fails(part, monkeypatch):
    monkeypatch.setattr(tf_ops, "avg_pool2d", lambda x, k, s, p: F.avg_pool2d(x, k, s, k // 2))
    assert {c for c, _ in failures(run(part("tf_ops")))} == {"tf_ops/avgpool17", "tf_ops/avgpool18"}


def test_unconverted_batch_norm_momentum_fails(part, monkeypatch):
    def unconverted(channels, *, momentum, eps):
        return torch.nn.BatchNorm2d(channels, eps=eps, momentum=momentum)

    monkeypatch.setattr(_layers, "batch_norm", unconverted)
    monkeypatch.setattr(_wrn, "batch_norm", unconverted)
    failed = failures(run(part("tf_ops", problems=["svhn_wrn164"])))
    assert ("tf_ops/bn", "moving_mean") in failed
    assert any("moving_variance" in quantity for _, quantity in failed)


def test_swapped_gates_fail(part, monkeypatch):
    monkeypatch.setattr(tf_weights, "_GATES", (0, 1, 2, 3))
    failed = {quantity for _, quantity in failures(run(part(problems=["tolstoi_char_rnn"])))}
    assert "per-example losses" in failed


@pytest.mark.parametrize("name", ["dense/kernel", "dense/bias"])
def test_a_gradient_that_is_no_number_fails(part, monkeypatch, name):
    original = tf_weights.Variable.gradient

    def spoilt(self):
        gradient = original(self)
        if self.name == name:
            gradient = gradient.copy()
            gradient.flat[-1] = np.nan
        return gradient

    monkeypatch.setattr(tf_weights.Variable, "gradient", spoilt)
    report = run(part(problems=["mnist_logreg"]))
    assert {quantity for _, quantity in failures(report)} == {"gradient norms"}


def test_regulariser_without_the_half_fails(part, monkeypatch):
    original = TestProblem.get_regularization_loss
    monkeypatch.setattr(TestProblem, "get_regularization_loss", lambda self: 2 * original(self))
    failed = {quantity for _, quantity in failures(run(part(problems=["cifar10_3c3d"])))}
    assert "regulariser" in failed


def test_regularising_dense_layers_of_vgg_fails(part, monkeypatch):
    monkeypatch.setattr(
        _families.ConvKernels,
        "regularized_parameters",
        lambda self: _families.kernels(self.net, dense=True),
    )
    failed = {case for case, _ in failures(run(part("parameter_counts")))}
    assert "parameter_counts/cifar10_vgg16" in failed


def test_altered_values_fail(part):
    folder = part(problems=["mnist_logreg"])
    records = json.loads((folder / "forward.json").read_text())
    records["mnist_logreg"]["phases"]["test"]["losses"][0] *= 1.0001
    (folder / "forward.json").write_text(json.dumps(records))
    assert ("forward/mnist_logreg/test", "per-example losses") in failures(run(folder))


def test_the_published_figures_in_the_package_are_compared(part):
    folder = part("baselines_v1_1")
    record = json.loads((folder / "baselines_v1_1.json").read_text())
    record["convergence_performance"]["mnist_vae"] += 1
    (folder / "baselines_v1_1.json").write_text(json.dumps(record))
    assert ("baselines_v1_1", "convergence thresholds") in failures(run(folder))


def edit(folder, name, change):
    """Change a JSON file in place."""
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def test_an_unknown_phase_is_unchecked_and_the_known_one_is_checked(part):
    folder = part(problems=["mnist_logreg", "mnist_mlp"])

    def rename(records):
        phases = records["mnist_logreg"]["phases"]
        phases["validation"] = dict(phases["test"])

    edit(folder, "forward.json", rename)
    report = run(folder)
    assert report.exit_code == 0, report.table()
    assert ("forward/mnist_logreg/validation", "unknown phase 'validation'; known are train, "
            "train_eval, valid, test") in report.skipped  # fmt: skip
    assert {row.case for row in report.rows} >= {"forward/mnist_logreg/test", "forward/mnist_mlp"}


@pytest.mark.parametrize("bound", ["grad_norm_rel", "logits_abs", "regularizer_rel"])
def test_a_missing_bound_leaves_its_quantity_unchecked(part, bound):
    folder = part(problems=["mnist_logreg"])
    before = run(folder)
    edit(folder, "meta.json", lambda meta: meta["bounds"].pop(bound))
    report = run(folder)
    assert report.exit_code == 0, report.table()
    assert any("no bound is recorded" in reason for _, reason in report.skipped)
    lost = {row.quantity for row in before.rows} - {row.quantity for row in report.rows}
    assert (
        lost
        == {
            "grad_norm_rel": {"gradient norms", "gradient entries"},
            "logits_abs": {"logits"},
            "regularizer_rel": {"regulariser"},
        }[bound]
    )


def test_a_variable_that_the_loss_ignores_has_the_gradient_zero(part, monkeypatch):
    folder = part(problems=["mnist_logreg"])
    original = tf_weights.Variable.gradient
    monkeypatch.setattr(
        tf_weights.Variable,
        "gradient",
        lambda self: None if self.name == "dense/bias" else original(self),
    )
    assert {q for _, q in failures(run(folder))} == {"gradient norms", "gradient entries"}

    def ignore(records):
        phase = records["mnist_logreg"]["phases"]["test"]
        phase["grad_l2_norms"][1], phase["grad_first3"][1] = 0.0, [0.0, 0.0, 0.0]

    edit(folder, "forward.json", ignore)
    report = run(folder)
    assert not report.failed, report.table()
    # and it hides no other variable's
    edit(
        folder,
        "forward.json",
        lambda r: r["mnist_logreg"]["phases"]["test"]["grad_l2_norms"].__setitem__(0, 7.0),
    )
    (row,) = run(folder).failed
    assert row.quantity == "gradient norms"
    assert row.detail == "1 of 2, most in dense/kernel"


def test_what_matches_nothing_is_listed(part):
    folder = part(problems=["mnist_logreg"])

    def add(records):
        phase = records["mnist_logreg"]["phases"]["test"]
        phase["grad_sums"] = [0.5, 0.25]
        phase["grad_l2_norms"][1] = None

    edit(folder, "forward.json", add)
    exceptions = {"mnist_logreg/test": {"odd_abs": 1.0}, "nothing/test": {"logits_abs": 1.0}}
    edit(folder, "meta.json", lambda meta: meta["bounds"].update(exceptions=exceptions, odd=1.0))
    skipped = {case: reason for case, reason in run(folder).skipped}
    assert set(skipped) == {
        "forward.json/mnist_logreg/phases/test/grad_sums",
        "forward/mnist_logreg/test",
        "meta.json/bounds/exceptions/mnist_logreg/test/odd_abs",
        "meta.json/bounds/exceptions/nothing/test",
        "meta.json/bounds/odd",
    }
    assert skipped["forward/mnist_logreg/test"] == "gradients of dense/bias are not recorded"


@pytest.mark.parametrize(("mean", "ok"), [(-8.7e-6, True), (1e-4, True), (1e-3, False)])
@pytest.mark.parametrize("deviation", [0.004, 0.3])
def test_low_contrast_needs_no_mean_of_exactly_zero(part, mean, ok, deviation):
    folder = part("preprocessing")
    with np.load(folder / "preprocessing.npz") as archive:
        arrays = dict(archive)
    z = np.random.RandomState(0).standard_normal((8, 8, 3))
    arrays["std_low"] = ((z - z.mean()) * deviation + mean).astype(np.float32)
    np.savez(folder / "preprocessing.npz", **arrays)
    failed = {quantity for _, quantity in failures(run(folder))}
    assert failed == (set() if ok else {"std_low is below the least deviation"})
