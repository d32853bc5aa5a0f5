"""The core's step and resume contract, for every registered and every hand-written optimizer.

One network with batch normalisation and dropout; what must hold in each system is in
``test_systems.py``.
"""

from __future__ import annotations

import inspect
import io
import itertools

import optimizers
import pytest
import torch
from torch import nn

from trainrig.loop import train_steps
from trainrig.optim import OPTIMIZERS, PRESETS, accepts, make_optimizer, resolve_optimizer
from trainrig.optim.needs import needs_of, same_bits
from trainrig.optim.replica import parameters_of
from trainrig.optim.resume import load_optimizer, optimizer_state, prepare_optimizer
from trainrig.seeding import capture_rng, restore_rng
from trainrig.updates import (
    evaluated_weights,
    load_training_weights,
    make_update,
    weights_to_save,
)

PUBLISHED = ("AdaHessian", "SophiaH", "SAM", "LookSAM", "AliG", "ScheduleFreeAdamW", "AdaBelief")
NAMES = [
    *(name for name in OPTIMIZERS if name != "sparseadam"),
    *PRESETS,
    *(f"pytorch_optimizer.{name}" for name in PUBLISHED),
    *(f"optimizers.{kind.__name__}" for kind in optimizers.RESUMED),
]


def network(*, channels_last: bool = False) -> nn.Sequential:
    torch.manual_seed(3)
    layers = [nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.1)]
    model = nn.Sequential(*layers, nn.Linear(16, 3))
    return model.to(memory_format=torch.channels_last) if channels_last else model


def build(name: str, model: nn.Module) -> torch.optim.Optimizer:
    options = {"lr": 0.01} if accepts(name, "lr") else {}
    if "base_optimizer" in inspect.signature(resolve_optimizer(name)).parameters:
        options |= {"base_optimizer": "sgd", "momentum": 0.9}
    optimizer = make_optimizer(name, model.parameters(), **options)
    prepare_optimizer(optimizer)
    return optimizer


def batches(start: int):
    for number in itertools.count(start):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(8, 2, 4, 4, generator=generator)
        yield x, torch.randint(0, 3, (8,), generator=generator)


def loss_fn(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1]), None


def steps(model, optimizer, first, last, **options):
    options = {"schedule": None} | options
    return list(
        train_steps(
            model, optimizer, batches(first), loss_fn, total_steps=last, start_step=first, **options
        )
    )


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def checkpoint(model, optimizer):
    weights, training = weights_to_save(model, optimizer)
    state = {**training, "optimizer": optimizer_state(optimizer), "rng": capture_rng("cpu")}
    return saved((weights, state))


def restored(name, stored, **options):
    weights, state = stored
    model = network(**options)
    optimizer = build(name, model)
    model.load_state_dict(weights)
    load_training_weights(model, state)
    load_optimizer(optimizer, state["optimizer"])
    restore_rng(state["rng"], "cpu")
    return model, optimizer


def assert_equal(model, other):
    for key, value in model.state_dict().items():
        assert same_bits(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_trains_and_resumes_bit_for_bit(name):
    model = network()
    optimizer = build(name, model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    records = steps(model, optimizer, 0, 3)
    assert all(torch.isfinite(record.loss) for record in records)
    assert any(not torch.equal(p, before[key]) for key, p in model.named_parameters())
    stored = checkpoint(model, optimizer)
    losses = [record.loss for record in steps(model, optimizer, 3, 6)]

    twin, resumed = restored(name, stored)
    assert [record.loss for record in steps(twin, resumed, 3, 6)] == losses
    assert_equal(model, twin)


@pytest.mark.parametrize("name", ["lbfgs", "soap", "muon", "optimizers.SharpnessAware"])
def test_kernels_in_channels_last(name):
    model = network(channels_last=True)
    optimizer = build(name, model)
    assert all(torch.isfinite(record.loss) for record in steps(model, optimizer, 0, 3))
    stored = checkpoint(model, optimizer)
    steps(model, optimizer, 3, 5)
    twin, resumed = restored(name, stored, channels_last=True)
    steps(twin, resumed, 3, 5)
    assert_equal(model, twin)


@pytest.mark.parametrize("kind", optimizers.REFUSED, ids=lambda kind: kind.__name__)
def test_what_cannot_be_resumed_is_refused_at_the_first_checkpoint(kind):
    model = network()
    with pytest.raises(ValueError, match=optimizers.REFUSED[kind]) as refusal:  # noqa: PT012
        optimizer = build(f"optimizers.{kind.__name__}", model)
        steps(model, optimizer, 0, 3)
        optimizer_state(optimizer)
    assert len(str(refusal.value).splitlines()) == 1


def test_sparse_gradients_are_refused_with_the_optimizers_own_words():
    with pytest.raises(ValueError, match=r"cannot be used.*SparseAdam does not support dense"):
        needs_of(make_optimizer("sparseadam", network().parameters()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", {}),
        ("lion", {}),
        ("optimizers.ClosureIgnored", {}),
        ("optimizers.NoClosure", {}),
        ("lbfgs", {"closure": True, "gradient_first": False, "keeps_gradient": False}),
        ("optimizers.SharpnessAware", {"closure": True, "keeps_gradient": False}),
        ("pytorch_optimizer.SAM", {"closure": True, "keeps_gradient": False}),
        ("pytorch_optimizer.AdaHessian", {"create_graph": True}),
        ("optimizers.CurvatureScaled", {"create_graph": True}),
        ("optimizers.Averaging", {"switches": True}),
        ("optimizers.Hooked", {"hook": True}),
    ],
)
def test_what_an_optimizer_needs_is_found(name, expected):
    assert needs_of(build(name, network())).describe() == expected


@pytest.mark.parametrize("name", ["lion", "soap", "lbfgs", "optimizers.GlobalNoise"])
def test_finding_it_and_checking_a_checkpoint_leave_the_run_as_it_was(name):
    model = network()
    optimizer = build(name, model)
    steps(model, optimizer, 0, 2)
    before = saved((model.state_dict(), optimizer.state_dict(), capture_rng("cpu")))
    needs_of(optimizer)
    optimizer_state(optimizer)
    after = saved((model.state_dict(), optimizer.state_dict(), capture_rng("cpu")))
    for one, two in zip(_leaves(before), _leaves(after), strict=True):
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two


def _leaves(value):
    return torch.utils._pytree.tree_leaves(value)


def test_a_closure_sees_the_same_dropout_and_leaves_batch_statistics_alone():
    model = network()
    optimizer = build("optimizers.ClosureRequired", model)
    seen = []
    inner = loss_fn

    def watching(net, batch):
        loss, _ = inner(net, batch)
        seen.append(loss.detach())
        return loss, None

    list(train_steps(model, optimizer, batches(0), watching, schedule=None, total_steps=1))
    assert len(seen) > 1
    assert model[1].num_batches_tracked == 1
    twin = network()
    plain = build("sgd", twin)
    torch.manual_seed(3)
    network()
    steps(twin, plain, 0, 1)
    assert torch.equal(model[1].running_mean, twin[1].running_mean)


def test_the_optimizer_owns_its_rate_until_the_schedule_moves():
    model = network()
    optimizer = build("optimizers.OwnRate", model)
    rates = [0.1, 0.1, 0.1, 0.5, 0.5]
    records = steps(model, optimizer, 0, 5, schedule=lambda done: rates[done])
    expected = [0.1, 0.1 * 0.9, 0.1 * 0.9 * 0.9, 0.5, 0.5 * 0.9]
    assert [record.lr for record in records] == pytest.approx(expected, rel=1e-12)
    stored = checkpoint(model, optimizer)
    twin, resumed = restored("optimizers.OwnRate", stored)
    constant = [
        steps(*pair, 5, 7, schedule=lambda _: 0.5) for pair in ((model, optimizer), (twin, resumed))
    ]
    assert [r.lr for r in constant[0]] == [r.lr for r in constant[1]]
    assert constant[0][0].lr < 0.5


def test_an_optimizer_without_a_rate_has_none_in_its_records():
    model = network()
    records = steps(model, build("optimizers.NoRate", model), 0, 2, schedule=lambda _: 0.1)
    assert [record.lr for record in records] == [None, None]


def test_the_gradient_is_measured_before_an_optimizer_clears_it():
    model = network()
    optimizer = build("optimizers.SharpnessAware", model)

    def measure():
        return torch.stack([p.grad.norm() for p in model.parameters()]).norm()

    update = make_update(optimizer, measure=measure)
    (record,) = steps(model, optimizer, 0, 1, update=update)
    assert record.measured > 0
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", ["schedulefree_adamw", "optimizers.Averaging"])
def test_averaged_weights_are_evaluated_and_saved_and_training_is_not_disturbed(name):
    model = network()
    optimizer = build(name, model)
    steps(model, optimizer, 0, 8)
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def forward():
        for x, _ in batches(100):
            yield model(x)

    with evaluated_weights(model, optimizer, forward):
        evaluated = {key: value.clone() for key, value in model.state_dict().items()}
    assert_equal_states(model.state_dict(), before)
    assert not torch.equal(evaluated["4.weight"], before["4.weight"])
    # The mean over batches at the averaged weights, not the moving average of training.
    assert evaluated["1.num_batches_tracked"] == 50
    with torch.no_grad():
        maps = torch.cat([x for (x, _), _ in zip(batches(100), range(50), strict=False)])
        means = nn.functional.conv2d(maps, evaluated["0.weight"]).mean((0, 2, 3))
    torch.testing.assert_close(evaluated["1.running_mean"], means, rtol=1e-4, atol=1e-6)
    weights, training = weights_to_save(model, optimizer, forward)
    assert_equal_states(weights, evaluated)
    assert_equal_states(training["training_weights"], before)


def assert_equal_states(one, two):
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


def test_float64_and_complex_state_come_back_as_they_were():
    for name, dtype in (("DoubleState", torch.float64), ("ComplexState", torch.complex64)):
        model = network()
        optimizer = build(f"optimizers.{name}", model)
        steps(model, optimizer, 0, 2)
        _, resumed = restored(f"optimizers.{name}", checkpoint(model, optimizer))
        first = parameters_of(resumed)[0]
        value = next(v for v in resumed.state[first].values() if isinstance(v, torch.Tensor))
        assert value.dtype == dtype


def test_how_an_optimizer_was_built_is_known_without_being_told():
    model = network()
    optimizer = make_optimizer("optimizers.CounterAttribute", model.parameters(), lr=0.01)
    steps(model, optimizer, 0, 2)
    assert optimizer_state(optimizer)["attributes"] == {"0.count": 2}


def test_only_the_changed_attributes_are_saved():
    model = network()
    optimizer = build("optimizers.CounterAttribute", model)
    assert "attributes" not in optimizer_state(optimizer)
    steps(model, optimizer, 0, 2)
    assert optimizer_state(optimizer)["attributes"] == {"0.count": 2}
