from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deepobs.pytorch import config, testproblems
from deepobs.pytorch.runners.smoke import is_big
from deepobs.pytorch.testproblems import TESTPROBLEMS, TestProblem
from deepobs.pytorch.testproblems._char_rnn import CharRNN, LSTMLayer
from deepobs.pytorch.testproblems._initialisers import glorot_normal_, truncated_normal_
from deepobs.pytorch.tf_weights import dump_tf_variables, load_tf_variables, tf_variables

SMALL = [name for name in TESTPROBLEMS if not is_big(name) and "wrn404" not in name]
REGULARISED = ["cifar10_3c3d", "cifar100_allcnnc", "svhn_wrn164"]


@pytest.fixture
def make():
    def build(name, batch_size=4, **arguments):
        problem = getattr(testproblems, name)(batch_size, **arguments)
        problem.set_up()
        return problem

    return build


@pytest.mark.parametrize("name", SMALL)
def test_contract(make, name):
    """Shapes, objective, gradients everywhere, evaluation without gradients, save and load."""
    problem = make(name)
    problem.train_init_op()
    batch = problem.next_batch()
    losses, accuracy = problem.get_batch_loss_and_accuracy(batch)
    assert losses.shape == (4,)
    assert 0 <= float(accuracy) <= 1
    assert problem.model is problem.net
    problem.train_init_op()
    loss, _ = problem.get_batch_loss_and_accuracy()
    loss.backward()
    for key, parameter in problem.net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key
    for init_op in (problem.train_eval_init_op, problem.test_init_op):
        init_op()
        assert not problem.net.training
        loss, _ = problem.get_batch_loss_and_accuracy()
        assert not loss.requires_grad
        assert math.isfinite(loss)
    with pytest.raises(ValueError, match="no validation set"):
        problem.valid_init_op()


@pytest.mark.parametrize("name", SMALL)
def test_tf_variables_round_trip(make, name):
    one, two = make(name), make(name)
    load_tf_variables(two.net, dump_tf_variables(one.net))
    state = two.net.state_dict()
    for key, value in one.net.state_dict().items():
        if "num_batches" not in key:
            assert torch.equal(value, state[key]), key
    assert len(tf_variables(one.net)) == len(dump_tf_variables(one.net))


def test_tf_names_are_checked_both_ways(make):
    net = make("mnist_logreg").net
    good = dump_tf_variables(net)
    with pytest.raises(KeyError, match=r"did you mean 'dense/kernel'"):
        load_tf_variables(net, {**good, "dense/kernl": good["dense/kernel"]})
    with pytest.raises(KeyError, match="no value for 'dense/bias'"):
        load_tf_variables(net, {"dense/kernel": good["dense/kernel"]})
    with pytest.raises(ValueError, match=r"shape \(10, 784\); the network expects \(784, 10\)"):
        load_tf_variables(net, {**good, "dense/kernel": good["dense/kernel"].T})


@pytest.mark.parametrize("name", REGULARISED)
def test_l2_is_half_the_squared_norm_of_kernels(make, name):
    problem = make(name)
    kernels = [p for p in problem.net.parameters() if p.ndim > 1]
    assert {id(p) for p in problem.regularized_parameters()} == {id(p) for p in kernels}
    expected = 0.5 * problem.weight_decay * sum(float(k.detach().square().sum()) for k in kernels)
    assert float(problem.get_regularization_loss().detach()) == pytest.approx(expected, rel=1e-5)
    problem.get_regularization_loss().backward()
    torch.testing.assert_close(kernels[0].grad, problem.weight_decay * kernels[0].detach())
    factors = {factor: len(ps) for factor, ps in problem.regularization_groups.items()}
    assert factors[problem.weight_decay] == len(kernels)
    groups = problem.parameter_groups()
    assert sum(len(group["params"]) for group in groups) == len(list(problem.net.parameters()))


def test_l2_in_optimizer_groups_takes_the_same_steps(make):
    """For plain SGD the factor in the loss and the optimizer's own decay are one thing."""
    nets = []
    for in_loss in (True, False):
        torch.manual_seed(0)
        problem = make("cifar10_3c3d")
        problem.l2_in_loss = in_loss
        groups = list(problem.net.parameters()) if in_loss else problem.parameter_groups()
        optimizer = torch.optim.SGD(groups, lr=0.1)
        problem.train_init_op()
        for _ in range(3):
            optimizer.zero_grad()
            problem.get_batch_loss_and_accuracy()[0].backward()
            optimizer.step()
        nets.append(problem.net)
    for one, two in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf"), True])
def test_bad_weight_decay(value):
    with pytest.raises(ValueError, match="a finite number of at least 0"):
        testproblems.cifar10_3c3d(4, value)


def test_weight_decay_without_regulariser_only_warns(caplog, make):
    problem = make("mnist_mlp", weight_decay=0.1)
    assert "no L2 regulariser" in caplog.text
    assert problem.get_regularization_loss() == 0


@pytest.mark.parametrize("name", ["mnist_vae", "svhn_wrn164", "tolstoi_char_rnn"])
def test_closure_is_repeatable(make, name):
    problem = make(name)
    problem.train_init_op()
    problem.get_batch_loss_and_accuracy()
    closure = problem.get_batch_loss_and_accuracy_func()
    first = closure()[0].item()
    stream, buffers = torch.get_rng_state(), [b.clone() for b in problem.net.buffers()]
    state = problem.carried_state()
    assert closure()[0].item() == first
    assert closure()[0].item() == first
    assert torch.equal(torch.get_rng_state(), stream)
    for now, before in zip(problem.net.buffers(), buffers, strict=True):
        if now.dtype.is_floating_point:
            assert torch.equal(now, before)
    if state is not None:
        assert torch.equal(problem.carried_state()[0][0], state[0][0])


def test_lbfgs_solves_the_quadratic(make):
    problem = make("quadratic_deep", 1000)
    optimizer = torch.optim.LBFGS(problem.net.parameters(), max_iter=200, tolerance_grad=1e-9)
    problem.train_init_op()
    evaluate = problem.get_batch_loss_and_accuracy_func()

    def closure():
        optimizer.zero_grad()
        loss = evaluate()[0]
        loss.backward()
        return loss

    optimizer.step(closure)
    assert evaluate()[0].item() == pytest.approx(84.7697, abs=0.1)


def test_logreg_starts_at_ln_10(make):
    problem = make("mnist_logreg")
    problem.test_init_op()
    losses, _ = problem.get_batch_loss_and_accuracy(reduction="none")
    torch.testing.assert_close(losses, torch.full((4,), math.log(10)))


def test_two_instances_of_the_quadratic_have_one_hessian(make):
    one, two = make("quadratic_deep"), make("quadratic_deep")
    assert torch.equal(one.net.hessian, two.net.hessian)
    assert float(torch.trace(one.net.hessian)) == pytest.approx(477.6123, abs=1e-3)


def test_state_is_carried_within_a_pass_and_reset_between(make):
    problem = make("tolstoi_char_rnn")
    problem.test_init_op()
    batch = problem.next_batch()
    fresh = problem.get_batch_loss_and_accuracy(batch)[0]
    carried = problem.get_batch_loss_and_accuracy(batch)[0]
    assert not torch.equal(fresh, carried)
    problem.test_init_op()
    assert torch.equal(problem.get_batch_loss_and_accuracy(batch)[0], fresh)
    assert not problem.carried_state()[0][0].requires_grad


def test_lstm_layer_equals_tensorflows_cell():
    torch.manual_seed(0)
    layer = LSTMLayer(3, 4).double()
    x, state = (
        torch.randn(2, 5, 3).double(),
        (torch.randn(2, 4).double(), torch.randn(2, 4).double()),
    )
    outputs, c_last, h_last = layer(x, state)
    c, h = state
    for t in range(5):
        z = x[:, t] @ layer.weight_ih.T + h @ layer.weight_hh.T + layer.bias
        i, f, j, o = z.chunk(4, 1)
        c = c * torch.sigmoid(f + 1) + torch.sigmoid(i) * torch.tanh(j)
        h = torch.tanh(c) * torch.sigmoid(o)
        torch.testing.assert_close(outputs[:, t], h)
    torch.testing.assert_close((c_last, h_last), (c, h))
    assert {name for name, _ in layer.named_parameters()} == {"weight_ih", "weight_hh", "bias"}


def test_char_rnn_has_four_independent_dropouts():
    net = CharRNN(83)
    assert [dropout.p for dropout in net.dropouts] == pytest.approx([0.2] * 4)
    net.train()
    shapes = []
    for dropout in net.dropouts:
        dropout.mask_source = lambda shape: shapes.append(tuple(shape)) or torch.ones(shape)
    net(torch.zeros(2, 50, dtype=torch.long), net.zero_state(2))
    assert shapes == [(2, 50, 128)] * 4  # elementwise: a fresh mask at each time step


@pytest.mark.parametrize("init", [glorot_normal_, lambda t: truncated_normal_(t, 0.05)])
def test_initialisers_realise_their_deviation(init):
    weight = torch.empty(300, 300)
    init(weight)
    target = math.sqrt(2 / 600) if init is glorot_normal_ else 0.05 * 0.8796
    assert float(weight.std()) == pytest.approx(target, rel=0.01)
    assert float(weight.abs().max()) <= (2.2737 * target if init is glorot_normal_ else 0.1) * 1.001


def test_fmnist_mlp_reads_mnist_in_reference_mode(make):
    assert type(make("fmnist_mlp").data).__name__ == "mnist"
    config.set_compat("fixed")
    assert type(make("fmnist_mlp").data).__name__ == "fmnist"


def test_float64(make):
    config.set_dtype("float64")
    problem = make("quadratic_deep", 1000)
    problem.test_init_op()
    losses, _ = problem.get_batch_loss_and_accuracy(reduction="none")
    assert losses.dtype is torch.float64
    np.testing.assert_allclose(losses.mean().item(), 353.9259790189763, rtol=1e-6)


def test_abstract_problem_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        TestProblem(4)


def test_a_pass_must_be_begun(make):
    with pytest.raises(ValueError, match="call train_init_op"):
        make("quadratic_deep").get_batch_loss_and_accuracy()


def test_a_pass_ends_with_stop_iteration(make):
    problem = make("quadratic_deep", 1000)
    problem.test_init_op()
    problem.get_batch_loss_and_accuracy()
    with pytest.raises(StopIteration):
        problem.get_batch_loss_and_accuracy()
