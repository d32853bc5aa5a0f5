"""The specification's functions on a tiny problem: what they return, refuse and leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optimizer_quality.config import CifarConfig
from optimizer_quality.data import make_loaders
from optimizer_quality.epoch import gradient_norms, layers_of
from optimizer_quality.experiment import make_model
from optimizer_quality.train import (
    train,
    train_one_epoch,
    training_forward,
    validate,
)
from optimizer_quality.utils import save_final_model, set_seed, setup_logging
from trainrig.errors import DivergedError


@pytest.fixture
def problem():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.randint(0, 3, (30,))
    batches = [(x[:16], y[:16]), (x[16:], y[16:])]
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), batches


def test_epoch_means_are_over_images(problem):
    model, batches = problem
    criterion = nn.CrossEntropyLoss()
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    trained = train_one_epoch(model, batches, still, criterion, "cpu", 1)
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    logits = model(x)
    assert trained["loss"] == pytest.approx(criterion(logits, y).item(), rel=1e-6)
    assert trained["accuracy"] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    measured = validate(model, batches, criterion, "cpu")
    assert measured["loss"] == pytest.approx(trained["loss"], rel=1e-6)


def test_closure_optimizers_work(problem):
    model, batches = problem
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4)
    losses = [
        train_one_epoch(model, batches, optimizer, nn.CrossEntropyLoss(), "cpu", e)["loss"]
        for e in (1, 2, 3)
    ]
    assert losses[-1] < losses[0]


def test_gradient_norms_by_layer_are_the_direct_ones(problem):
    model, (batch, _) = problem
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    nn.functional.cross_entropy(model(batch[0]), batch[1]).backward()
    direct = {
        name: torch.cat([p.grad.flatten() for p in model[int(name)].parameters()]).norm().item()
        for name in "02"
    }
    norms = gradient_norms(list(layers_of(model).values()))
    assert norms.tolist()[:2] == pytest.approx(list(direct.values()), rel=1e-6)
    trained = train_one_epoch(model, [batch, batch], optimizer, nn.CrossEntropyLoss(), "cpu", 1)
    assert trained["grad_norm_by_layer"] == pytest.approx(direct, rel=1e-6)
    assert trained["grad_norm"] == pytest.approx(norms[2].item(), rel=1e-6)


def test_non_finite_loss_stops_the_run(problem):
    model, batches = problem
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(DivergedError, match="epoch 3: the training loss is nan"):
        train_one_epoch(model, batches, optimizer, nn.CrossEntropyLoss(), "cpu", 3)


def test_only_full_batches_are_compiled(problem, monkeypatch):
    model, batches = problem
    sizes = []

    def recorded(wrapped, **options):
        assert options == {"dynamic": False}
        return lambda images: sizes.append(len(images)) or wrapped(images)

    monkeypatch.setattr(torch, "compile", recorded)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = CifarConfig(num_epochs=2, engine="compile", batch_size=16)
    train(model, batches, batches, batches, optimizer, config)
    assert sizes == [16, 16]
    adahessian = type("AdaHessian", (torch.optim.SGD,), {})(model.parameters())
    with pytest.raises(ValueError, match="engine compile: cannot serve AdaHessian"):
        training_forward(model, adahessian, config)


@pytest.mark.slow  # a compilation
def test_compiled_training_equals_eager_within_rounding():
    """In float64, where rounding is far below any difference in what is computed."""
    states, losses = [], []
    for engine in ("eager", "compile"):
        config = CifarConfig(
            dataset="synthetic", model="resnet8_6n2", batch_size=16, train_items=88, engine=engine
        )
        batches = [(images.double(), labels) for images, labels in make_loaders(config).train]
        model = make_model(config, 3).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        forward = training_forward(model, optimizer, config)
        criterion = nn.CrossEntropyLoss()
        result = train_one_epoch(model, batches, optimizer, criterion, "cpu", 1, forward)
        losses.append(result["loss"])
        states.append(model.state_dict())
    assert losses[0] == pytest.approx(losses[1], rel=1e-11)
    torch.testing.assert_close(states[0], states[1], rtol=1e-10, atol=1e-10)


def test_test_set_is_touched_once(problem):
    model, batches = problem
    touched = []

    class Counting(list):
        def __iter__(self):
            touched.append(1)
            return super().__iter__()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = CifarConfig(num_epochs=3)
    results = train(model, batches, batches, Counting(batches), optimizer, config)
    assert len(touched) == 1
    assert set(results) == {"train", "val", "test"}


def test_set_seed_chooses_deterministic_cudnn():
    set_seed(1)
    first = torch.rand(3)
    set_seed(1)
    assert torch.equal(first, torch.rand(3))
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark


def test_final_model_loads_in_safe_mode(problem, tmp_path):
    model, _ = problem
    save_final_model(model, tmp_path / "final_model.pt", {"final": {"test": {"accuracy": 0.5}}})
    loaded = torch.load(tmp_path / "final_model.pt", weights_only=True)
    assert loaded["metrics"]["final"]["test"]["accuracy"] == 0.5
    assert all(torch.equal(loaded["model"][k], v) for k, v in model.state_dict().items())


def test_logging_twice_writes_each_line_once(tmp_path):
    for _ in range(2):
        logger = setup_logging(tmp_path / "train.log")
    logger.info("once")
    assert (tmp_path / "train.log").read_text().count("once") == 1
