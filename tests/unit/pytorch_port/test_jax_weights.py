"""Haiku names and layouts: every name accounted for, round trips exact, errors named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pytorch_port.model.jax_weights import export_jax_weights, load_jax_weights, parameter_map
from pytorch_port.model.sequence_models import SEQ_MODELS, build_model


def build(seq_model="transformer", encoding="embedding"):
    return build_model(
        seq_model,
        embedding={"emb_dim": 16, "example_encoding": encoding},
        model={"num_classes": 7, "num_layers": 2},
        example_shape=None if encoding == "embedding" else (2, 12, 12),
    )


@pytest.mark.parametrize("seq_model", sorted(SEQ_MODELS))
@pytest.mark.parametrize("encoding", ["embedding", "linear", "resnet"])
def test_round_trip_is_exact(seq_model, encoding):
    model, other = build(seq_model, encoding), build(seq_model, encoding)
    if encoding == "resnet":
        model(torch.rand(2, 3, 2, 12, 12), torch.zeros(2, 3, dtype=torch.long))
    params, state = export_jax_weights(model)
    assert len(params) == len(list(model.parameters()))
    load_jax_weights(other, params, state)
    for (name, a), (_, b) in zip(
        model.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_nested_haiku_dictionaries_are_accepted():
    model, other = build(), build()
    params, _ = export_jax_weights(model)
    nested: dict[str, dict[str, np.ndarray]] = {}
    for name, array in params.items():
        module, _, leaf = name.rpartition("/")
        nested.setdefault(module, {})[leaf] = array
    load_jax_weights(other, nested)
    assert torch.equal(model.head.weight, other.head.weight)


def test_an_encoder_that_the_reference_lacks_is_refused():
    with pytest.raises(ValueError, match="'conv': the reference has no such encoder"):
        export_jax_weights(build(encoding="conv"))


def test_layouts():
    params, state = export_jax_weights(build(encoding="resnet"))
    stem = "input_embedder/simple_res_net/~/initial"
    assert params[f"{stem}_conv/w"].shape == (7, 7, 2, 64)
    assert params[f"{stem}_batchnorm/scale"].shape == (1, 1, 1, 64)
    assert state[f"{stem}_batchnorm/~/mean_ema/hidden"].shape == (1, 1, 1, 64)
    assert params["transformer/linear/w"].shape == (16, 7)


def test_unknown_missing_and_misshapen_names_raise_and_change_nothing():
    model = build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    params, _ = export_jax_weights(build())
    with pytest.raises(KeyError, match="'transformer/linear/wx' has no place"):
        load_jax_weights(model, params | {"transformer/linear/wx": np.zeros(3)})
    fewer = {k: v for k, v in params.items() if k != "transformer/linear/b"}
    with pytest.raises(KeyError, match=r"1 missing parameter names, e\.g\. 'transformer/linear/b'"):
        load_jax_weights(model, fewer)
    with pytest.raises(ValueError, match=r"has shape \(3,\); this model needs \(7,\)"):
        load_jax_weights(model, params | {"transformer/linear/b": np.zeros(3, np.float32)})
    with pytest.raises(KeyError, match=r"state .* has no place"):
        load_jax_weights(model, params, {"x/~/mean_ema/counter": np.zeros(())})
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_unequal_counters_are_refused():
    model = build(encoding="resnet")
    params, state = export_jax_weights(model)
    name = next(n for n in state if n.endswith("var_ema/counter"))
    with pytest.raises(ValueError, match="differs from the counter of its mean"):
        load_jax_weights(model, params, state | {name: np.array(3)})


def test_foreign_models_have_no_haiku_names():
    with pytest.raises(TypeError, match="no Haiku names for a Linear"):
        parameter_map(torch.nn.Linear(2, 2))
