"""A directory nobody has seen: other shapes, lengths, class counts, encoders and optimizers.

The arrays are recorded here from the port itself, whose agreement with the reference other tests
prove; what is tested is that the checker reads everything from the directory.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pytorch_port import parity
from pytorch_port.model.jax_weights import as_haiku, export_jax_weights, parameter_map
from pytorch_port.model.sequence_models import build_model
from pytorch_port.parity import kinks
from pytorch_port.parity.golden import Golden
from pytorch_port.parity.kinks import ExactGradients, Kink, KinkWatch
from pytorch_port.parity.subject import ModelCase
from pytorch_port.parity.traces import filtered_norms
from pytorch_port.train.losses import icl_loss, make_targets
from trainrig.metrics import grad_l2, weight_l2_all
from trainrig.optim import make_optimizer
from trainrig.optim.schedules import warmup_rsqrt

N_STEPS, BATCH, ITEMS = 4, 3, 6
BOUNDS = {
    "logits_abs": 2e-5,
    "loss_rel": 1e-5,
    "scalars_abs": 1e-5,
    "grad_norm_rel": 1e-4,
    "grad_norm_abs": 1e-7,
    "skip_grad_of": "*/causal_self_attention/linear_1/b",
    "bn_state_abs": 1e-5,
    "lr_rel": 1e-6,
    "trace": {"loss_rel": 2e-5, "weight_l2_rel": 1e-5, "grad_rel": 1e-4},
    "trace_resnet": {"loss_rel": 5e-3, "weight_l2_rel": 1e-5, "grad_rel": 5e-3},
}
TRACES = {
    "slow": {"optimizer": "sgd", "momentum": 0.9, "max_lr": 0.01, "warmup_steps": 2},
    "fast": {
        "optimizer": "adamw",
        "weight_decay": 0.3,
        "max_lr": 1e-3,
        "warmup_steps": 3,
        "betas": [0.8, 0.95],
        "eps": 1e-6,
    },
}
CASES = {
    "model_wide": {
        "seq_model": "transformer",
        "embedding": {"emb_dim": 24, "example_encoding": "linear", "concatenate_labels": True},
        "model": {"num_classes": 57, "num_layers": 3, "num_heads": 6, "dropout_prob": 0.0},
        "w_interim": 0.0,
    },
    "model_colour": {
        "seq_model": "lstm",
        "embedding": {"emb_dim": 16, "example_encoding": "resnet"},
        "model": {"num_classes": 13, "num_layers": 2, "hidden_size": 20},
        "w_interim": 0.7,
    },
    "model_symbols": {
        "seq_model": "vanilla_rnn",
        "embedding": {
            "emb_dim": 10,
            "example_encoding": "embedding",
            "use_positional_encodings": False,
        },
        "model": {"num_classes": 21, "num_layers": 1, "hidden_size": 9},
        "w_interim": 0.25,
    },
}


def train(model, loss_of, examples, labels, settings):
    """Follow one run and return its series."""
    kwargs = {k: v for k, v in settings.items() if k in ("momentum", "weight_decay", "eps")}
    kwargs |= {"betas": tuple(settings["betas"])} if "betas" in settings else {}
    optimizer = make_optimizer(settings["optimizer"], model.parameters(), lr=0.0, **kwargs)
    schedule = warmup_rsqrt(settings["max_lr"], settings["warmup_steps"])
    rows = []
    for step in range(N_STEPS):
        optimizer.param_groups[0]["lr"] = schedule(step)
        optimizer.zero_grad()
        loss = loss_of(model(examples[step], labels[step]), labels[step])
        loss.backward()
        optimizer.step()
        rows.append(
            {
                "loss": loss.item(),
                "lr": schedule(step),
                "weight_l2_all": weight_l2_all(model).item(),
                "grad_l2": grad_l2(model).item(),
                **{k: v.item() for k, v in filtered_norms(model).items()},
            }
        )
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def record(stem, case):
    """Return the arrays of one case in the recorded format."""
    torch.manual_seed(len(stem))
    encoding, k = case["embedding"]["example_encoding"], case["model"]["num_classes"]
    concatenate = case["embedding"].get("concatenate_labels", False)
    arrays = {}

    def inputs(prefix, *lead):
        labels = torch.randint(0, k, (*lead, BATCH, ITEMS))
        arrays[f"{prefix}labels"] = labels.numpy().astype(np.int32)
        if encoding == "embedding":
            examples = torch.randint(0, k, (*lead, BATCH, ITEMS))
            arrays[f"{prefix}examples"] = examples.numpy().astype(np.int32)
            return examples, labels
        images = torch.randint(0, 256, (*lead, BATCH, ITEMS, 18, 15, 2), dtype=torch.uint8)
        arrays[f"{prefix}examples_uint8"] = images.numpy()
        arrays["examples_divisor"] = np.array(255)
        return images.movedim(-1, -3).float() / 255, labels

    def loss_of(logits, labels):
        return icl_loss(logits, labels, case["w_interim"], concatenate_labels=concatenate)

    def build():
        torch.manual_seed(7)
        shape = None if encoding == "embedding" else (2, 18, 15)
        settings = {key: case[key] for key in ("embedding", "model")}
        return build_model(case["seq_model"], **settings, example_shape=shape)

    examples, labels = inputs("")
    model = build()
    params, state = export_jax_weights(model)
    arrays |= {f"params/{n}": v.copy() for n, v in params.items()}
    arrays |= {f"state0/{n}": v.copy() for n, v in state.items()}
    logits = model(examples, labels)
    loss = loss_of(logits, labels)
    loss.backward()
    arrays |= {"logits_train": logits.detach().numpy(), "loss_train": np.array(loss.item())}
    arrays["target"] = make_targets(labels, concatenate_labels=concatenate).numpy()
    gradients = as_haiku(parameter_map(model), {n: p.grad for n, p in model.named_parameters()})
    for name, g in gradients.items():
        g = g.double()
        arrays[f"grad_norm/{name}"] = np.array([g.norm(), g.sum(), g.abs().max()])
    _, state = export_jax_weights(model)
    arrays |= {f"state1/{n}": v.copy() for n, v in state.items()}
    model.eval()
    arrays["logits_eval_state1"] = model(examples, labels).detach().numpy()
    batches = inputs("train_batches/", N_STEPS)
    for tag, settings in TRACES.items():
        series = train(build(), loss_of, *batches, settings)
        arrays |= {f"{tag}/{name}": values for name, values in series.items()}
    return arrays, sum(p.numel() for p in model.parameters())


@pytest.fixture
def foreign(tmp_path):
    cases = {}
    for stem, case in CASES.items():
        arrays, n_params = record(stem, case)
        np.savez(tmp_path / f"{stem}.npz", **arrays)
        cases[stem] = {**case, "n_params": n_params}
    (tmp_path / "models.json").write_text(json.dumps({"models": cases}))
    (tmp_path / "meta.json").write_text(json.dumps({"bounds": BOUNDS, "traces": TRACES}))
    return tmp_path


def test_every_case_is_found_and_passes(foreign):
    report = parity.run(foreign)
    assert not report.failed, report.table()
    assert not report.skipped, report.table()
    for stem in CASES:
        rows = {(r.case, r.quantity) for r in report.rows}
        assert {(stem, "logits eval_state1 query-only"), (stem, "gradient norms")} <= rows
        assert {(f"{stem}/{tag}", "loss") for tag in TRACES} <= rows
    assert ("model_colour", "BatchNorm state 1") in rows


def test_a_wrong_divisor_is_seen(foreign):
    with np.load(foreign / "model_wide.npz") as archive:
        arrays = dict(archive)
    arrays.pop("examples_divisor")  # then the default of 1 holds
    np.savez(foreign / "model_wide.npz", **arrays)
    assert {r.case for r in parity.run(foreign).failed} >= {"model_wide", "model_wide/fast"}


IMAGES = "model_colour"  # through a ResNet


def measures(gradients):
    return [np.array([g.norm(), g.sum(), g.abs().max()]) for g in gradients]


def record_gradients(folder, change):
    """Replace the recorded gradients of the image model by ``change`` of our float64 ones."""
    golden = Golden(folder)
    arrays = golden.arrays(f"{IMAGES}.npz")
    subject = ModelCase(golden, IMAGES, golden.json("models.json")["models"][IMAGES], arrays)
    exact = ExactGradients(subject.exact_pass)
    found = as_haiku(parameter_map(subject.blank()), change(subject, exact))
    named = dict(zip(found, measures(found.values()), strict=True))
    np.savez(
        folder / f"{IMAGES}.npz", **dict(arrays) | {f"grad_norm/{n}": v for n, v in named.items()}
    )


def of_gradients(folder):
    rows = [r for r in parity.run(folder).rows if r.case == IMAGES and "gradient" in r.quantity]
    return {r.quantity: r for r in rows}


def test_a_record_from_beyond_a_kink_is_explained_by_it(foreign, monkeypatch):
    monkeypatch.setattr(kinks, "ROUNDING", 1e-3)  # so that this small model has kinks
    chosen: list[Kink] = []

    def beyond(subject, exact):
        sizes = {k: sum(float(s.abs().sum()) for s in v.values()) for k, v in exact.shares.items()}
        chosen.append(max(sizes, key=sizes.__getitem__))
        loss, parameters = subject.exact_pass(KinkWatch(chosen))
        return dict(zip(parameters, torch.autograd.grad(loss, [*parameters.values()]), strict=True))

    record_gradients(foreign, beyond)
    rows = of_gradients(foreign)
    assert all(row.ok for row in rows.values()), rows
    assert str(chosen[0]) in rows["gradient norms"].detail
    assert {"gradient norms, ours in float32", "gradient maxima, ours in float32"} <= rows.keys()
    monkeypatch.setattr(kinks, "ROUNDING", 0.0)  # without kinks nothing explains it
    assert not all(row.ok for row in of_gradients(foreign).values())


def test_no_kink_explains_a_wrong_gradient(foreign):
    record_gradients(foreign, lambda subject, exact: {n: 1.001 * g for n, g in exact.plain.items()})
    rows = of_gradients(foreign)
    assert not rows["gradient norms"].ok
    assert rows["gradient norms, ours in float32"].ok
