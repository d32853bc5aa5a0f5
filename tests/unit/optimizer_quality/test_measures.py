"""Every measure against a direct computation on a network small enough for one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from optimizer_quality.measures.barrier import (
    Line,
    loss_line,
    mean_loss,
    mix,
    reestimate_batchnorm,
)
from optimizer_quality.measures.curvature import (
    COORDINATES,
    HessianOperator,
    folded,
    hutchinson_traces,
    lanczos,
)
from optimizer_quality.measures.features import maximise_activation
from optimizer_quality.measures.layers import (
    activation_statistics,
    singular_values,
    weight_statistics,
)
from optimizer_quality.measures.predictions import (
    calibration,
    disagreement,
    error_consistency,
    predict,
    total_variation,
)
from optimizer_quality.measures.pruning import SCOPES, pruned
from optimizer_quality.measures.representations import RIDGE, class_similarity, probe_accuracy
from optimizer_quality.measures.robustness import CORRUPTIONS
from optimizer_quality.measures.similarity import CkaMatrix, cka, gram, hsic, layer_grams
from optimizer_quality.models import ResNet


@pytest.fixture
def tiny():
    """A network of 35 parameters with BatchNorm, in float64, and two batches."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 3, (20,))
    model.train()
    model(x)  # running statistics off their start
    return model.eval(), [(x[:12], y[:12]), (x[12:], y[12:])]


@pytest.fixture
def full_hessian(tiny):
    """The Hessian formed entry by entry."""
    model, batches = tiny
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def loss(flat):
        sizes = [s.numel() for s in shapes]
        values = [v.view(s) for v, s in zip(flat.split(sizes), shapes, strict=True)]
        logits = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))
        return nn.functional.cross_entropy(logits, y)

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    return torch.autograd.functional.hessian(loss, flat)


def test_hessian_products_are_the_full_hessian(tiny, full_hessian):
    operator = HessianOperator(*tiny)
    assert operator.size == len(full_hessian)
    identity = torch.eye(operator.size, dtype=torch.float64)
    columns = torch.stack([operator(row) for row in identity])
    assert_close(columns, full_hessian, rtol=1e-9, atol=1e-12)


def test_a_folded_network_is_the_same_function_of_the_same_parameters():
    torch.manual_seed(0)
    model = ResNet(4, 1).double()
    model(torch.randn(20, 3, 8, 8).double())
    model.eval()
    other, x = folded(model), torch.randn(5, 3, 8, 8).double()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in (other.stem[1], other.stage1[0].bn1))
    assert_close(other(x), model(x), rtol=1e-5, atol=1e-6)  # logits are float32
    gradients = [
        torch.autograd.grad(m(x).square().sum(), list(model.parameters())) for m in (model, other)
    ]
    assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_top_eigenvalues_and_trace_are_those_of_the_full_hessian(tiny, full_hessian):
    operator = HessianOperator(*tiny)
    exact = torch.linalg.eigvalsh(full_hessian).flip(0)
    found = lanczos(operator, operator.like, n_top=5, n_steps=operator.size)
    found_values = torch.tensor(found.eigenvalues, dtype=torch.float64)
    assert_close(found_values, exact[:5], rtol=1e-9, atol=1e-12)
    assert_close(operator.products(torch.eye(3, operator.size).double()), full_hessian[:3])


@pytest.mark.parametrize("name", COORDINATES)
def test_relative_curvature_is_that_of_the_rescaled_hessian(tiny, full_hessian, name):
    """D built value by value: a row of a kernel is a filter, any other parameter is one."""
    operator = HessianOperator(*tiny)
    wanted = []
    for parameter in tiny[0].parameters():
        for row in parameter.detach() if parameter.ndim > 1 else [parameter.detach()]:
            for value in row:
                whole = math.sqrt(sum(v.item() ** 2 for v in row))
                wanted.append({"plain": 1.0, "filter": whole, "adaptive": abs(value.item())}[name])
    d = COORDINATES[name](operator.parameters)
    assert_close(d, torch.tensor(wanted, dtype=torch.float64))
    scaled = torch.diag(d) @ full_hessian @ torch.diag(d)
    found = lanczos(lambda v: d * operator(d * v), operator.like, n_top=3, n_steps=operator.size)
    exact = torch.linalg.eigvalsh(scaled).flip(0)[:3]
    assert_close(torch.tensor(found.eigenvalues).double(), exact, rtol=1e-6, atol=1e-9)
    ((trace, error),) = hutchinson_traces(operator, [d], n_probes=400)
    assert 0 < abs(trace - scaled.trace().item()) < 4 * error


def test_residuals_bound_the_error_before_convergence():
    torch.manual_seed(1)
    basis = torch.linalg.qr(torch.randn(40, 40)).Q
    values = torch.linspace(0.1, 4, 40) ** 2
    matrix = basis @ torch.diag(values) @ basis.T
    found = lanczos(lambda v: matrix @ v, torch.zeros(40), n_top=3, n_steps=9)
    for value, bound in zip(found.eigenvalues, found.residuals, strict=True):
        assert (values - value).abs().min() <= bound + 1e-4
    assert found.products == 9


def test_krylov_space_that_ends_early_is_no_error():
    found = lanczos(lambda v: 2.0 * v, torch.zeros(10), n_top=1, n_steps=5)
    assert found.eigenvalues[0] == pytest.approx(2.0, rel=1e-5)
    assert found.products == 1
    with pytest.raises(ValueError, match="give at least as many"):
        lanczos(lambda v: v, torch.zeros(10), n_top=5, n_steps=4)


def test_plain_cka_is_the_formula_on_features():
    x, y = torch.randn(30, 5), torch.randn(30, 7) + 1
    a, b = x - x.mean(0), y - y.mean(0)
    direct = (b.T @ a).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b).norm())
    assert cka(gram(x), gram(y), unbiased=False) == pytest.approx(direct.item(), rel=1e-5)


def test_unbiased_hsic_is_its_definition_by_sums():
    """Against the U-statistic over all quadruples of distinct items."""
    n = 7
    k, l = gram(torch.randn(n, 3)).double(), gram(torch.randn(n, 4)).double()  # noqa: E741
    total, count = 0.0, 0
    for i in range(n):
        for j in range(n):
            for q in range(n):
                for r in range(n):
                    if len({i, j, q, r}) == 4:
                        total += k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
                        count += 1
    assert hsic(k, l).item() == pytest.approx((total / count).item(), rel=1e-6)


def test_unbiased_cka_of_unrelated_wide_features_is_near_zero():
    x, y = torch.randn(40, 4000), torch.randn(40, 4000)
    assert cka(gram(x), gram(y), unbiased=False) > 0.9  # the bias
    assert abs(cka(gram(x), gram(y))) < 0.1
    assert cka(gram(x), gram(x @ torch.linalg.qr(torch.randn(4000, 8)).Q)) != 1
    assert cka(gram(x), gram(3 * x)) == pytest.approx(1.0)


def test_cka_matrix_is_pairwise_cka():
    ours = [gram(torch.randn(25, p)) for p in (3, 9)]
    theirs = [gram(torch.randn(25, p)) for p in (4, 6)]
    matrix = CkaMatrix(ours).between(CkaMatrix(theirs))
    direct = torch.tensor([[cka(k, l) for l in theirs] for k in ours]).double()  # noqa: E741
    assert_close(matrix, direct, rtol=1e-4, atol=1e-5)


def test_layer_grams_cover_every_layer():
    model = ResNet(10, 1).eval()
    x = torch.randn(6, 3, 32, 32)
    grams = layer_grams(model, [(x[:4], None), (x[4:], None)])
    assert list(grams) == model.layer_names
    assert_close(grams["fc"], gram(model(x).detach()), rtol=1e-3, atol=1e-3)


def test_line_is_the_direct_computation(tiny):
    a, batches = tiny
    torch.manual_seed(7)
    b = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    line = loss_line(a, b.eval(), batches, n_points=11)
    assert len(line.points) == 11
    assert line.loss[0] == mean_loss(a, batches)[0]
    assert line.loss[-1] == mean_loss(b, batches)[0]
    middle = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for p, q, r in zip(middle.parameters(), a.parameters(), b.parameters(), strict=True):
            p.copy_((q + r) / 2)
        for name in ("running_mean", "running_var"):
            value = (getattr(a[1], name) + getattr(b[1], name)) / 2
            getattr(middle[1], name).copy_(value)
    assert line.loss[5] == pytest.approx(mean_loss(middle, batches)[0], rel=1e-12)
    excess = [
        loss - (1 - t) * line.loss[0] - t * line.loss[-1]
        for t, loss in zip(line.points, line.loss, strict=True)
    ]
    assert line.barrier == max(excess) >= 0


def test_barrier_of_a_known_line():
    assert Line((0, 0.5, 1), (1.0, 5.0, 2.0), (0, 0, 0)).barrier == 3.5
    assert Line((0, 0.5, 1), (1.0, 0.5, 2.0), (0, 0, 0)).barrier == 0.0


def test_reestimated_statistics_are_those_of_the_images(tiny):
    model, batches = tiny
    x = batches[0][0]
    reestimate_batchnorm(model, [(x, None)])
    inner = model[0](x).detach()
    assert_close(model[1].running_mean, inner.mean(0))
    assert_close(model[1].running_var, inner.var(0))
    assert model[1].momentum == 0.1
    assert not model.training


def test_mixing_leaves_counters_alone():
    a, b = nn.BatchNorm1d(2).state_dict(), nn.BatchNorm1d(2).state_dict()
    b["weight"] = b["weight"] + 2
    mixed = mix(a, b, 0.25)
    assert mixed["weight"].tolist() == [1.5, 1.5]
    assert mixed["num_batches_tracked"] == 0


def test_disagreement_and_distance():
    a = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 0.0]])
    b = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    assert disagreement(a, b) == 0.5
    p = math.exp(2) / (1 + math.exp(2))
    assert total_variation(a, b) == pytest.approx(0.5 * (2 * p - 1))
    assert total_variation(a, a) == 0


def test_calibration_by_hand():
    logits = torch.tensor([[9.0, 0.0], [9.0, 0.0], [0.1, 0.0], [0.1, 0.0]])
    labels = torch.tensor([0, 1, 0, 0])
    found = calibration(logits, labels)
    high, low = 1 / (1 + math.exp(-9)), 1 / (1 + math.exp(-0.1))
    assert found.ece == pytest.approx(0.5 * (high - 0.5) + 0.5 * (1 - low), rel=1e-9)
    assert [count for _, count, _, _ in found.bins] == [2, 2]
    assert found.confidence == pytest.approx((high + low) / 2)
    assert found.nll == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


def test_predictions_come_in_the_loaders_order(tiny):
    model, batches = tiny
    logits, labels = predict(model, batches)
    assert torch.equal(logits, model(torch.cat([x for x, _ in batches])))
    assert torch.equal(labels, torch.cat([y for _, y in batches]))


def test_weight_statistics_by_hand():
    model, start = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        start.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 0.0]]))
    (row,) = weight_statistics(model, start)
    assert row["l2"] == 5
    assert row["stable_rank"] == pytest.approx(25 / 16)
    assert row["distance_from_start"] == pytest.approx(4 / 3)
    assert row["near_zero"] == 0.5


def test_activation_statistics_are_those_of_all_images_at_once():
    model = ResNet(10, 1).eval()
    x = torch.randn(6, 3, 32, 32)
    rows = {row["layer"]: row for row in activation_statistics(model, [(x[:4], 0), (x[4:], 0)])}
    value = model.activations(x, ["stage2.0"])["stage2.0"].detach().double()
    assert rows["stage2.0"]["mean"] == pytest.approx(value.mean().item(), rel=1e-6)
    assert rows["stage2.0"]["sd"] == pytest.approx(value.std(correction=0).item(), rel=1e-5)
    assert rows["stage2.0"]["zeros"] == pytest.approx((value == 0).double().mean().item())
    eigenvalues = torch.linalg.eigvalsh(value.transpose(0, 1).flatten(1).cov(correction=0))
    ratio = (eigenvalues.sum() ** 2 / eigenvalues.square().sum()).item()
    assert rows["stage2.0"]["participation_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_maximised_images_excite_their_units():
    model = ResNet(10, 1).eval()
    _, before = maximise_activation(model, (3, 32, 32), n_steps=0)
    images, after = maximise_activation(model, (3, 32, 32), n_steps=20)
    assert images.shape == (10, 3, 32, 32)
    assert (after > before).all()
    again, _ = maximise_activation(model, (3, 32, 32), n_steps=20)
    assert torch.equal(images, again)


def test_error_consistency_is_kappa_of_right_and_wrong():
    a, b, labels = torch.randn(200, 4), torch.randn(200, 4), torch.randint(0, 4, (200,))
    right = [
        [int(row.argmax()) == int(y) for row, y in zip(m, labels, strict=True)] for m in (a, b)
    ]
    p, q = (sum(r) / 200 for r in right)
    same = sum(x == y for x, y in zip(*right, strict=True)) / 200
    chance = p * q + (1 - p) * (1 - q)
    assert error_consistency(a, b, labels) == pytest.approx((same - chance) / (1 - chance))
    assert error_consistency(a, a, labels) == pytest.approx(1)
    perfect = nn.functional.one_hot(labels, 4).float()
    assert math.isnan(error_consistency(perfect, perfect, labels))


def test_class_similarity_is_the_mean_over_pairs():
    features, labels = torch.rand(9, 5), torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    found = class_similarity(features, labels, 4)
    for i in range(3):
        for j in range(3):
            cosines = [
                nn.functional.cosine_similarity(features[a].double(), features[b].double(), dim=0)
                for a in range(9)
                for b in range(9)
                if a != b and labels[a] == i and labels[b] == j
            ]
            assert found[i, j].item() == pytest.approx(torch.stack(cosines).mean().item(), rel=1e-6)
    assert found[3].isnan().all()  # a class without images


def test_probe_is_ridge_regression_by_gradient_descent():
    """The closed form is where descending the penalised squared error ends."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 3).double() * torch.tensor([1.0, 10.0, 0.1]), torch.randint(0, 3, (60,))
    x[:, 0] += y
    scaled = (x - x.mean(0)) / x.std(0)
    target = nn.functional.one_hot(y, 3).double()
    prior, w = target.mean(0), torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(2000):
        w -= 0.01 * (scaled.T @ (scaled @ w - (target - prior)) + RIDGE * 60 * w)
    direct = ((scaled @ w + prior).argmax(1) == y).double().mean().item()
    assert probe_accuracy((x, y), (x, y), 3) == pytest.approx(direct, abs=1e-6)
    dead = torch.cat([x, torch.ones(60, 1)], dim=1)  # a unit that never moves
    assert probe_accuracy((dead, y), (dead, y), 3) == pytest.approx(direct, abs=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_pruning_removes_the_smallest(scope):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))
    with torch.no_grad():
        model[0].weight.mul_(5)
    before = [model[0].weight.detach().clone(), model[2].weight.detach().clone()]
    after = pruned(model, 0.4, scope)
    sizes = [w.abs() for w in before]
    if scope == "filter":
        sizes = [torch.stack([r / r.norm() for r in s]) for s in sizes]
    everything = sorted(v for s in sizes for v in s.flatten().tolist())
    for kernel, size, w in zip((after[0].weight, after[2].weight), sizes, before, strict=True):
        own = everything if scope == "network" else sorted(size.flatten().tolist())
        limit = own[int(0.4 * len(own)) - 1]
        assert_close(kernel.detach(), torch.where(size <= limit, 0.0, w))
    assert_close(model[0].weight.detach(), before[0])  # the model itself stays
    assert_close(after[0].bias, model[0].bias)


def test_effective_rank_and_angle_are_their_formulas():
    w = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    start, model = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(w)
        start.weight.copy_(w.roll(1, 0))
    shares = [0.5, 1 / 3, 1 / 6]
    wanted = math.exp(-sum(p * math.log(p) for p in shares))
    (row,) = weight_statistics(model, start)
    assert row["effective_rank"] == pytest.approx(wanted)
    assert row["angle_from_start"] == pytest.approx(90)
    with torch.no_grad():
        start.weight.copy_(0.1 * w)
    assert weight_statistics(model, start)[0]["angle_from_start"] == pytest.approx(0, abs=1e-4)
    values = [row["singular_value"] for row in singular_values(model)]
    assert values == pytest.approx([1, 2 / 3, 1 / 3])


def test_corruptions_leave_pictures_and_get_stronger():
    torch.manual_seed(0)
    images = nn.functional.interpolate(torch.rand(4, 3, 8, 8), size=(32, 32), mode="bilinear")
    for name, corrupt in CORRUPTIONS.items():
        changed = [(corrupt(images, s) - images).square().mean().item() for s in range(1, 6)]
        assert changed == sorted(changed), name
        assert changed[0] > 0
        assert torch.equal(corrupt(images, 3), corrupt(images, 3))
        assert 0 <= corrupt(images, 5).min() <= corrupt(images, 5).max() <= 1
    flat = torch.full((1, 3, 32, 32), 0.4)
    for name in ("blur", "contrast", "rotation"):
        assert_close(CORRUPTIONS[name](flat, 5), flat)
