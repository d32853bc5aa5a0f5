"""``PtychoPINN_Lightning``: the model with its optimiser, losses and checkpoint contents.

A checkpoint holds plain tensors and plain dicts, so it loads with ``weights_only=True``; its
``hyper_parameters`` are the four torch-side configurations. Importing this module needs lightning
(extra ``ptycho``).
"""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptycho_torch import config_params as torch_side
from ptycho_torch.config_bridge import to_model_config
from ptycho_torch.network.pinn import PtychoPINN, pinn_loss, supervised_loss
from ptycho_torch.physics.scaling import probe_norm
from ptycho_torch.stepping import SteppedModule, build_optimizer

__all__ = ["PtychoPINN", "PtychoPINN_Lightning"]

CONFIG_CLASSES = {
    "model_config": torch_side.ModelConfig,
    "data_config": torch_side.DataConfig,
    "training_config": torch_side.TrainingConfig,
    "inference_config": torch_side.InferenceConfig,
}
EXPONENTIAL_DECAY = 0.95  # per epoch, scheduler "Exponential"


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


class PtychoPINN_Lightning(SteppedModule):  # noqa: N801 - the contract's name
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
        self.example_input_array = None

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
        gain = float(torch.exp(self.net.log_scale.detach()).double() / self.intensity_scale)
        return gain / (input_factor * norm)

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
            scale = self.object_scale(float(self.input_factor), float(self.probe_norm))
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

    def training_step(self, batch: dict[str, Any], _: int) -> dict[str, Tensor]:
        """One batch: ``loss`` of this process's rows, ``mean`` of all; logged at first sight."""
        value, mean, size = *self._shared(batch), batch["count"]
        if self.first is not None:
            return {"loss": value, "mean": self.first["mean"]}
        self.log(self.loss_name, mean, on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        self.last_output = {"mean": mean}
        return {"loss": value, "mean": mean}

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """One validation batch."""
        mean = self._shared(batch)[1]
        self.log(self.val_loss_name, mean, prog_bar=True, batch_size=batch["count"])

    def _shared(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the loss of this process's rows, and the mean over the processes: the batch's."""
        value = self.loss(batch) * batch["weight"]
        return value, self.trainer.strategy.reduce(value.detach().clone())

    def configure_optimizers(self) -> Any:
        """The optimiser of the configuration over every trainable parameter."""
        t = self.training_config
        trained = [p for p in self.parameters() if p.requires_grad]
        lr = t.learning_rate * math.sqrt(max(t.n_devices, 1))
        optimizer = build_optimizer(t, trained, lr=lr, accum_steps=t.accum_steps)
        self.optimizer = optimizer
        if t.scheduler == "Default":
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self._scheduler(optimizer)}

    def _scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        t = self.training_config
        if t.scheduler == "ReduceLROnPlateau":
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer,
                factor=t.plateau_factor,
                patience=t.plateau_patience,
                min_lr=t.plateau_min_lr,
                threshold=t.plateau_threshold,
            )
            return {"scheduler": plateau, "monitor": self.val_loss_name}

        def factor(epoch: int) -> float:
            if t.scheduler == "Exponential":
                return EXPONENTIAL_DECAY**epoch
            if epoch < t.warmup_epochs:
                return (epoch + 1) / (t.warmup_epochs + 1)
            done = (epoch - t.warmup_epochs) / max(1, t.epochs - t.warmup_epochs)
            return t.min_lr_ratio + (1 - t.min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * done))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip by norm, by value, or adaptively (each tensor to a share of its weight's norm)."""
        t = self.training_config
        if t.gradient_clip_val is None:
            return
        if t.gradient_clip_algorithm != "agc":
            self.clip_gradients(optimizer, t.gradient_clip_val, t.gradient_clip_algorithm)
            return
        for p in self.parameters():
            if p.grad is not None:
                limit = t.gradient_clip_val * p.detach().norm().clamp_min(1e-3)
                p.grad.mul_((limit / p.grad.norm().clamp_min(1e-6)).clamp_max(1.0))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the configurations as plain dicts."""
        self.save_training(checkpoint)
        checkpoint["hyper_parameters"] = {
            name: plain(getattr(self, name)) for name in CONFIG_CLASSES
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the probe as many modes as the stored one has; keep what training continues from."""
        self.load_training(checkpoint)
        stored = checkpoint["state_dict"].get("net.probe_parts")
        if stored is not None and stored.shape != self.net.probe_parts.shape:
            self.net.probe_parts.data = torch.zeros_like(stored)
            self.model_config.probe_modes = len(stored)
