"""Embedder and sequence models: shapes, causality, query-only path, dropouts, bad settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from pytorch_port.model.embedding import InputEmbedder, sinusoid_positions
from pytorch_port.model.sequence_models import SEQ_MODELS, build_model

SIZES = {"transformer": {"num_heads": 2}, "lstm": {"hidden_size": 12}, "vanilla_rnn": {}}


def build(seq_model="transformer", *, shape=None, encoding="embedding", n_layers=2, **embedding):
    torch.manual_seed(1)
    return build_model(
        seq_model,
        embedding={"emb_dim": 16, "example_encoding": encoding, **embedding},
        model={"num_classes": 11, "num_layers": n_layers, **SIZES[seq_model]},
        example_shape=shape,
    )


def symbols(n_items=5):
    return torch.randint(0, 11, (3, n_items)), torch.randint(0, 11, (3, n_items))


@pytest.mark.parametrize("seq_model", sorted(SEQ_MODELS))
@pytest.mark.parametrize("concatenate", [False, True])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_contract_shapes_gradients_and_query_only(seq_model, concatenate, n_layers):
    model = build(seq_model, concatenate_labels=concatenate, n_layers=n_layers).double()
    examples, labels = symbols()
    logits = model(examples, labels)
    assert logits.shape == (3, 5 if concatenate else 9, 11)
    query = model(examples, labels, query_only=True)
    assert_close(query, logits[:, -1:], rtol=1e-9, atol=1e-12)
    logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("seq_model", sorted(SEQ_MODELS))
@pytest.mark.parametrize("concatenate", [False, True])
def test_the_querys_label_is_never_seen(seq_model, concatenate):
    model = build(seq_model, concatenate_labels=concatenate)
    examples, labels = symbols()
    other = labels.clone()
    other[:, -1] = (other[:, -1] + 1) % 11
    assert torch.equal(model(examples, labels), model(examples, other))


@pytest.mark.parametrize("seq_model", sorted(SEQ_MODELS))
def test_predictions_are_causal(seq_model):
    model = build(seq_model)
    examples, labels = symbols()
    changed = examples.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 11
    assert_close(model(examples, labels)[:, :6], model(changed, labels)[:, :6])


def test_lstm_follows_its_equations():
    model = build("lstm", n_layers=1).double()
    examples, labels = symbols()
    x = model.embedder(examples, labels)
    (core,), h = model.cores, x.new_zeros(3, 12)
    c = torch.zeros_like(h)
    for t in range(x.shape[1]):
        gates = torch.cat([x[:, t], h], dim=1) @ core.weight.T + core.bias
        i, g, f, o = gates.chunk(4, dim=1)
        c = torch.sigmoid(f + 1.0) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    assert_close(model(examples, labels, query_only=True)[:, 0], model.head(h))


@pytest.mark.parametrize("encoding", ["linear", "conv", "resnet"])
def test_image_encodings(encoding):
    model = build(encoding=encoding, shape=(3, 20, 20))
    images, labels = torch.rand(2, 4, 3, 20, 20), torch.randint(0, 11, (2, 4))
    assert model(images, labels).shape == (2, 7, 11)


def test_linear_encoding_flattens_in_pixel_then_channel_order():
    embedder = InputEmbedder(
        11, 16, "linear", example_shape=(2, 3, 4), use_positional_encodings=False
    )
    image = torch.rand(1, 1, 2, 3, 4)
    expected = embedder.encoder(image[0, 0].permute(1, 2, 0).reshape(1, -1))
    assert_close(embedder(image, torch.zeros(1, 1, dtype=torch.long))[0], expected)


def test_example_dropout_acts_in_evaluation_too():
    model = build(example_dropout_prob=0.5).eval()
    examples, labels = symbols()
    assert not torch.equal(model(examples, labels), model(examples, labels))


def test_positional_dropout_acts_in_training_only():
    model = build(positional_dropout_prob=0.5)
    examples, labels = symbols()
    assert not torch.equal(model(examples, labels), model(examples, labels))
    model.eval()
    assert torch.equal(model(examples, labels), model(examples, labels))


def test_positions_grow_with_the_sequence_and_stay_out_of_the_state():
    model = build()
    model(*symbols(3))
    long = model(*symbols(9))
    assert long.shape[1] == 17
    assert "embedder.positions" not in model.state_dict()


def test_sinusoids_are_halves_not_interleaved():
    pe = sinusoid_positions(4, 6)
    angle = 3 / 30 ** (2 * 1 / 6)
    assert_close(pe[3, 1], torch.tensor(angle).sin())
    assert_close(pe[3, 4], torch.tensor(angle).cos())
    with pytest.raises(ValueError, match="width 5 is odd"):
        sinusoid_positions(4, 5)


def test_sinusoids_are_the_correctly_rounded_ones_of_each_float32_operation():
    width, tokens = 64, 401
    exponent = [np.float32(j) / np.float32(width) for j in range(0, width, 2)]
    frequency = [np.float32(1) / np.float32(30.0 ** float(e)) for e in exponent]
    angle = [[float(np.float32(t) * f) for f in frequency] for t in range(tokens)]
    rows = [[*map(math.sin, row), *map(math.cos, row)] for row in angle]
    assert torch.equal(
        sinusoid_positions(tokens, width), torch.tensor(rows, dtype=torch.float64).float()
    )


@pytest.mark.parametrize(
    ("seq_model", "layers", "count"),
    [("transformer", 12, 831_479), ("lstm", 12, 627_831), ("vanilla_rnn", 12, 331_383)],
)
def test_published_parameter_counts(seq_model, layers, count):
    model = build_model(
        seq_model,
        embedding={"emb_dim": 64, "example_encoding": "resnet"},
        model={"num_classes": 1623, "num_layers": layers},
        example_shape=(1, 105, 105),
    )
    assert sum(p.numel() for p in model.parameters()) == count


def test_bad_settings_are_one_sentence():
    with pytest.raises(KeyError, match="unknown sequence model 'transfomer'; did you mean"):
        build_model("transfomer", embedding={}, model={"num_classes": 3})
    with pytest.raises(ValueError, match="unknown value 'resnett'; did you mean 'resnet'"):
        build(encoding="resnett")
    with pytest.raises(ValueError, match="example_shape: missing"):
        build(encoding="linear")
    with pytest.raises(ValueError, match="num_layers: 0 is not positive"):
        build(n_layers=0)


def test_same_seed_same_model_bitwise():
    first, second = build("lstm"), build("lstm")
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
