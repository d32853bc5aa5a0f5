"""``PtychoPINN_Lightning``: the network with its four configurations, scales and losses.

Its name and ``load_from_checkpoint`` are what Ptychodus calls. A ``.ckpt`` holds plain tensors and
plain dicts in Lightning's layout, so it loads with ``weights_only=True``; its
``hyper_parameters`` are the four configurations.
"""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ptycho_torch import config_params as torch_side
from ptycho_torch.config_bridge import to_model_config
from ptycho_torch.network.pinn import PtychoPINN, pinn_loss, supervised_loss
from ptycho_torch.physics.scaling import probe_norm
from trainrig.checkpoint import load_dictionary
from trainrig.errors import CheckpointError

__all__ = ["PtychoPINN", "PtychoPINN_Lightning"]

CONFIG_CLASSES = {
    "model_config": torch_side.ModelConfig,
    "data_config": torch_side.DataConfig,
    "training_config": torch_side.TrainingConfig,
    "inference_config": torch_side.InferenceConfig,
}


def rebuild(cls: type, value: Any) -> Any:
    """A configuration object from itself or from its plain dict, unknown keys refused.

    Raises:
        ValueError: the dict names a field that the class does not have.
    """
    if not isinstance(value, dict):
        return cls() if value is None else value
    names = {item.name for item in fields(cls)}
    unknown = sorted(set(value) - names)
    if unknown:
        raise ValueError(f"checkpoint: unknown {cls.__name__} fields {', '.join(unknown)}")
    kept = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
    return cls(**kept)


def plain(config: Any) -> dict[str, Any]:
    """A configuration as builtins only."""
    values = asdict(config)
    if not isinstance(values.get("probe_mask", False), bool | type(None)):
        values["probe_mask"] = True
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


class PtychoPINN_Lightning(nn.Module):  # noqa: N801 - the contract's name
    """The trainable model; call ``set_scan`` before training.

    Args:
        model_config: torch-side configuration, or its plain dict; so are the next three.
        data_config: frames and grouping.
        training_config: optimisation.
        inference_config: stitching.
    """

    model_config: torch_side.ModelConfig
    data_config: torch_side.DataConfig
    training_config: torch_side.TrainingConfig
    inference_config: torch_side.InferenceConfig
    input_factor: Tensor
    intensity_scale: Tensor
    probe_norm: Tensor
    loss_name = "train_loss"
    val_loss_name = "val_loss"

    def __init__(
        self,
        model_config: Any = None,
        data_config: Any = None,
        training_config: Any = None,
        inference_config: Any = None,
    ) -> None:
        super().__init__()
        given = (model_config, data_config, training_config, inference_config)
        for (name, cls), value in zip(CONFIG_CLASSES.items(), given, strict=True):
            setattr(self, name, rebuild(cls, value))
        for config in (self.model_config, self.data_config, self.training_config):
            config.validate()
            torch_side.warn_unused(config)
        size = self.data_config.N
        self.net = PtychoPINN(
            to_model_config(self.data_config, self.model_config),
            torch.ones(self.model_config.probe_modes, size, size, dtype=torch.complex64),
            1.0,
            train_scale=self.model_config.intensity_scale_trainable,
            train_probe=self.model_config.probe_trainable,
        )
        for name in ("input_factor", "intensity_scale", "probe_norm"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))

    @property
    def supervised(self) -> bool:
        """Whether labels are compared instead of diffraction."""
        return self.model_config.mode == "Supervised"

    def set_scan(
        self, probe: np.ndarray, input_factor: float, intensity_scale: float | None = None
    ) -> None:
        """Take the probe (m, N, N) and the scales of the training scan.

        Without an intensity scale the photon scale of the data themselves is used, so that
        s·X are the stored amplitudes again.
        """
        modes = torch.from_numpy(np.asarray(probe, dtype=np.complex64))
        norm = probe_norm(modes, self.data_config.probe_scale)
        scale = 1.0 / input_factor if intensity_scale is None else intensity_scale
        self.model_config.probe_modes = len(modes)
        with torch.no_grad():
            self.input_factor.fill_(input_factor)
            self.intensity_scale.fill_(scale)
            self.probe_norm.fill_(norm)
            self.net.log_scale.fill_(math.log(scale))
            self.net.probe_parts.data = torch.view_as_real(modes / norm).clone()

    def forward(self, images: Tensor, relative: Tensor) -> Tensor:
        """Predicted photon amplitudes (B, C, N, N) of photon amplitudes and positions."""
        return self.net(images, relative)

    def object_scale(self, input_factor: float, norm: float) -> float:
        """From raw patches to the object in physical units, for a scan's own two scales."""
        return float(self._gain()) / (input_factor * norm)

    def _gain(self) -> Tensor:
        return torch.exp(self.net.log_scale.detach()).double() / self.intensity_scale

    def forward_predict(
        self, x: Tensor, positions: Tensor, probe: Any = None, input_scale: Any = 1.0
    ) -> Tensor:
        """Raw object patches; see ``PtychoPINN.forward_predict``."""
        return self.net.forward_predict(x, positions, probe, input_scale)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The batch's training loss."""
        images, relative = batch["images"], batch["relative"]
        if self.supervised:
            patches = self.net.consistent(self.net.patches(images), relative)
            scale = self._gain() / (self.input_factor * self.probe_norm)  # waits for no device
            return supervised_loss(patches * scale, batch["labels"])
        predicted, bad = self(images, relative), batch.get("bad")
        training = self.training_config
        if self.model_config.loss_function == "MSE":
            return pinn_loss(predicted, images, "mse", bad)
        if self.model_config.loss_function == "MAE" or not training.nll:
            return pinn_loss(predicted, images, "mae", bad)
        total = training.nll_weight * pinn_loss(predicted, images, "poisson", bad)
        if training.mae_weight:
            total = total + training.mae_weight * pinn_loss(predicted, images, "mae", bad)
        return total

    @classmethod
    def load_from_checkpoint(cls, path: str | Path, **configs: Any) -> PtychoPINN_Lightning:
        """Rebuild a model from a ``.ckpt``: tensors and plain values only.

        Args:
            path: of the file.
            configs: by their names; those of the file where left out.

        Raises:
            FileNotFoundError: no such file.
            CheckpointError: pickled objects inside, missing configurations, other weights.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; give a checkpoint")
        content = load_dictionary(path)
        configs = {**content.get("hyper_parameters", {}), **configs}
        lacking = [name for name in CONFIG_CLASSES if name not in configs]
        lacking += ["state_dict"] * ("state_dict" not in content)
        if lacking:
            raise CheckpointError(
                f"{path}: no {', '.join(lacking)}; not a checkpoint of this package"
            )
        model = cls(**{name: configs[name] for name in CONFIG_CLASSES})
        model.load_strictly(content["state_dict"], str(path))
        return model.eval()

    def checkpoint(self, **fields: Any) -> dict[str, Any]:
        """Return what ``load_from_checkpoint`` reads, and ``fields`` beside it."""
        configs = {name: plain(getattr(self, name)) for name in CONFIG_CLASSES}
        return {**fields, "state_dict": self.state_dict(), "hyper_parameters": configs}

    def load_strictly(self, state: dict[str, Tensor], where: str) -> None:
        """Load a state dict, naming every missing, surplus and misshaped entry.

        The probe gets as many modes as the stored one has.

        Raises:
            CheckpointError: anything else differs from the model's own entries.
        """
        stored = state.get("net.probe_parts")
        if stored is not None and stored.shape != self.net.probe_parts.shape:
            self.net.probe_parts.data = torch.zeros_like(stored)
            self.model_config.probe_modes = len(stored)
        own = self.state_dict()
        problems = [f"missing {name}" for name in own if name not in state]
        problems += [f"surplus {name}" for name in state if name not in own]
        problems += [
            f"{name} is {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in state and own[name].shape != state[name].shape
        ]
        if problems:
            shown = "; ".join(problems[:6]) + ("; ..." if len(problems) > 6 else "")
            raise CheckpointError(f"{where}: weights of another architecture ({shown})")
        self.load_state_dict(state)
