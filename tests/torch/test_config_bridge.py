"""Every configuration field against the recorded snapshots, and the torch side's translation."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from ptycho_torch import config_params as torch_side
from ptycho_torch.config import canonical, params
from ptycho_torch.config_bridge import (
    KEY_MAPPINGS,
    to_inference_config,
    to_model_config,
    to_training_config,
    update_legacy_dict,
)
from ptycho_torch.parity.config_cases import snapshot

GOLDEN = Path(__file__).parents[1] / "parity" / "golden" / "ptycho" / "params_cfg_snapshots.json"
RECORD = json.loads(GOLDEN.read_text())
CLASSES = (canonical.ModelConfig, canonical.TrainingConfig, canonical.InferenceConfig)
FIELDS = [(cls, item) for cls in CLASSES for item in fields(cls) if item.name != "model"]
EVERY_KEY = [
    (name, key) for name, entry in RECORD["snapshots"].items() for key in entry["params_cfg"]
]


@pytest.mark.parametrize("name", RECORD["snapshots"])
def test_snapshot_keys(name):
    assert set(snapshot(RECORD, name)) == set(RECORD["snapshots"][name]["params_cfg"])


@pytest.mark.parametrize(("name", "key"), EVERY_KEY)
def test_snapshot_value_and_type(name, key):
    wanted = RECORD["snapshots"][name]["params_cfg"][key]
    found = snapshot(RECORD, name)[key]
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("cls", "item"), FIELDS, ids=lambda v: v.__name__ if isinstance(v, type) else v.name
)
def test_every_field_reaches_the_dictionary(cls, item):
    sample = {"str": "x", "int": 7, "float": 0.25, "bool": True, "Path": Path("p")}
    kind = item.type.split("|")[0].strip()
    value = sample[kind]
    if item.name == "n_images":
        pytest.skip("deprecated alias of n_groups, covered by its own test")
    if cls is canonical.ModelConfig:
        config = canonical.TrainingConfig(model=cls(**{item.name: value}))
    else:
        config = cls(model=canonical.ModelConfig(), **{item.name: value})
    target: dict = {}
    update_legacy_dict(target, config)
    found = target[KEY_MAPPINGS.get(item.name, item.name)]
    assert found == (str(value) if isinstance(value, Path) else value)


def test_none_never_erases_and_keys_are_only_added():
    target = {"n_groups": 9, "custom": 1}
    update_legacy_dict(
        target, canonical.InferenceConfig(canonical.ModelConfig(), Path("m"), Path("t"))
    )
    assert target["n_groups"] == 9
    assert target["custom"] == 1


def test_the_deprecated_count_warns_and_is_copied():
    with pytest.warns(DeprecationWarning, match="n_groups"):
        config = canonical.TrainingConfig(model=canonical.ModelConfig(), n_images=300)
    assert config.n_groups == 300


def test_derived_and_unknown_keys():
    params.reset()
    assert params.get("bigN") == 128 + 4
    with pytest.raises(KeyError, match="nothing_like_it"):
        params.get("nothing_like_it")
    assert params.get("nothing_like_it", 3) == 3


def test_placeholders_are_accepted_and_refused_at_use():
    model = canonical.ModelConfig(N=0)
    with pytest.raises(ValueError, match=r"ModelConfig\.N: 0"):
        model.validate()
    model.N = 64
    model.validate()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("batch_size", 12, "power of two"),
        ("nepochs", 0, "1 or more"),
        ("mae_weight", 2.0, "\\[0, 1\\]"),
        ("nphotons", 0.0, "positive"),
        ("backend", "jax", "tensorflow, pytorch"),
        ("scheduler", "Linear", "WarmupCosine"),
    ],
)
def test_training_ranges(field, value, message):
    config = canonical.TrainingConfig(model=canonical.ModelConfig(), **{field: value})
    with pytest.raises(ValueError, match=message):
        config.validate()


def test_realspace_mae_needs_realspace_weight():
    config = canonical.TrainingConfig(model=canonical.ModelConfig(), realspace_mae_weight=0.5)
    with pytest.raises(ValueError, match="realspace_weight > 0"):
        config.validate()


def built(**changes):
    data = torch_side.DataConfig(nphotons=1e9, grid_size=(2, 2))
    model = torch_side.ModelConfig()
    for key, value in changes.items():
        setattr(data if hasattr(data, key) else model, key, value)
    return data, model


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("silu", "swish"), ("SiLU", "swish"), ("swish", "swish"), ("sigmoid", "sigmoid"),
     ("softplus", "softplus"), ("relu", "relu")],
)  # fmt: skip
def test_activations(name, wanted):
    assert to_model_config(*built(amp_activation=name)).amp_activation == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"grid_size": (2, 3)}, "not square"), ({"mode": "Semi"}, "Unsupervised"),
     ({"amp_activation": "gelu"}, "gelu")],
)  # fmt: skip
def test_untranslatable_values(changes, message):
    with pytest.raises(ValueError, match=message):
        to_model_config(*built(**changes))


@pytest.mark.parametrize(
    ("mask", "wanted"), [(None, False), (True, True), (False, False), ([1], True)]
)
def test_probe_mask_becomes_a_switch(mask, wanted):
    assert to_model_config(*built(probe_mask=mask)).probe_mask is wanted


def test_upstream_fixture_values_cross_the_bridge():
    data = torch_side.DataConfig(
        N=128, grid_size=(3, 3), C=9, K=6, nphotons=5e8, probe_scale=2.0, subsample_seed=99
    )
    pt_model = torch_side.ModelConfig(
        amp_activation="swish", object_big=False, pad_object=False, probe_big=False,
        probe_mask=True, gaussian_smoothing_sigma=0.5, intensity_scale_trainable=True,
    )  # fmt: skip
    training = torch_side.TrainingConfig(epochs=100, batch_size=32, nll=True)
    model = to_model_config(data, pt_model)
    overrides = {
        "train_data_file": "a.npz", "n_groups": 512, "n_subsample": 1024,
        "mae_weight": 0.3, "nll_weight": 0.7,
    }  # fmt: skip
    before = asdict(data), asdict(pt_model), asdict(training)
    config = to_training_config(model, data, pt_model, training, overrides)
    assert (asdict(data), asdict(pt_model), asdict(training)) == before
    assert config.backend == "pytorch"
    assert config.intensity_scale_trainable
    target: dict = {}
    update_legacy_dict(target, config)
    wanted = {
        "N": 128, "gridsize": 3, "amp_activation": "swish", "batch_size": 32, "mae_weight": 0.3,
        "gaussian_smoothing_sigma": 0.5, "nll_weight": 0.7, "n_groups": 512, "n_subsample": 1024,
        "neighbor_count": 6, "nepochs": 100, "nphotons": 5e8, "object.big": False,
        "pad_object": False, "probe.big": False, "probe.mask": True, "probe_scale": 2.0,
        "subsample_seed": 99, "train_data_file_path": "a.npz", "model_type": "pinn",
    }  # fmt: skip
    assert {key: target[key] for key in wanted} == wanted


def test_training_needs_data_groups_and_a_photon_decision():
    data, pt_model = built()
    model = to_model_config(data, pt_model)
    training = torch_side.TrainingConfig()
    with pytest.raises(ValueError, match="train_data_file"):
        to_training_config(model, data, pt_model, training, {"n_groups": 5})
    with pytest.raises(ValueError, match="n_groups"):
        to_training_config(model, data, pt_model, training, {"train_data_file": "a.npz"})
    data.nphotons = torch_side.TORCH_NPHOTONS
    with pytest.raises(ValueError, match=r"100000.*1e\+09"):
        to_training_config(model, data, pt_model, training, {"train_data_file": "a", "n_groups": 5})


def test_an_unknown_override_names_the_nearest():
    data, pt_model = built()
    model = to_model_config(data, pt_model)
    with pytest.raises(ValueError, match="did you mean 'n_groups'"):
        to_training_config(model, data, pt_model, torch_side.TrainingConfig(), {"n_group": 5})


def test_inference_needs_its_paths_and_keeps_them_as_paths():
    data, pt_model = built()
    model = to_model_config(data, pt_model)
    inference = torch_side.InferenceConfig()
    with pytest.raises(ValueError, match="model_path"):
        to_inference_config(model, data, inference, {"test_data_file": "t.npz"})
    config = to_inference_config(
        model, data, inference, {"test_data_file": "t.npz", "model_path": "run", "n_groups": 3}
    )
    assert config.model_path == Path("run")
    assert config.neighbor_count == 6


PTYCHODUS_KEYWORDS = {
    torch_side.DataConfig: """N C normalize neighbor_function scan_pattern probe_normalize x_bounds
        y_bounds min_neighbor_distance max_neighbor_distance K_quadrant n_subsample probe_scale K
        grid_size probe_ramp_removal data_scaling phase_subtraction""",
    torch_side.ModelConfig: """mode object_big probe_big loss_function amp_activation cbam_encoder
        decoder_last_amp_channels use_shared_decoder intensity_scale_trainable intensity_scale
        max_position_jitter num_datasets C_model C_forward amp_loss phase_loss amp_loss_coeff
        phase_loss_coeff n_filters_scale probe_mask eca_decoder batch_norm edge_pad
        decoder_last_c_outer_fraction cbam_bottleneck cbam_decoder spatial_decoder
        decoder_spatial_kernel eca_encoder offset probe_reference_coeff amplitude_variance_loss
        amplitude_variance_coeff""",
    torch_side.TrainingConfig: """epochs batch_size learning_rate n_devices num_workers accum_steps
        epochs_fine_tune fine_tune_gamma gradient_clip_val nll device strategy framework
        orchestrator scheduler warmup_epochs min_lr_ratio notes model_name
        enable_staged_finetuning finetune_stage1_epochs finetune_stage2_epochs
        finetune_stage3_epochs finetune_stage1_lr_decoder finetune_stage2_lr_encoder_top
        finetune_stage2_lr_decoder finetune_stage2_lr_phase_head
        finetune_stage3_lr_encoder_bottom finetune_stage3_lr_encoder_top
        finetune_stage3_lr_decoder finetune_stage3_lr_phase_head finetune_skip_stage3
        finetune_early_stop_patience finetune_val_split""",
    torch_side.InferenceConfig: """batch_size middle_trim experiment_number patch_weighting pad_eval
        window""",
    torch_side.DatagenConfig: "",
}


@pytest.mark.parametrize("cls", PTYCHODUS_KEYWORDS, ids=lambda cls: cls.__name__)
def test_ptychodus_keywords_are_accepted_and_survive_pickling(cls):
    config = cls(**dict.fromkeys(PTYCHODUS_KEYWORDS[cls].split(), 1))
    again = pickle.loads(pickle.dumps(config))
    assert asdict(again) == asdict(config)


def test_both_spellings_are_one_setting():
    config = torch_side.TrainingConfig(lr_warmup_epochs=3, lr_min_ratio=0.2)
    assert (config.warmup_epochs, config.min_lr_ratio) == (3, 0.2)
    config.lr_warmup_epochs = 5
    assert config.warmup_epochs == 5
    with pytest.raises(TypeError, match="one setting"):
        torch_side.TrainingConfig(lr_warmup_epochs=3, warmup_epochs=3)
