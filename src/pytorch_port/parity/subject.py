"""One recorded model: settings, inputs in any recorded form, and our copy of it."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from pytorch_port.model.jax_weights import load_jax_weights
from pytorch_port.model.sequence_models import build_model
from pytorch_port.parity.golden import Arrays, Golden, under
from pytorch_port.parity.kinks import KinkWatch
from pytorch_port.train.losses import icl_loss
from trainrig.models.resnet import ResNetEncoder


def read_examples(golden: Golden, stem: str, arrays: Arrays, prefix: str = "") -> Tensor:
    """Return model input: int64 (..., L) or float (..., L, C, H, W), from any recorded form.

    Raises:
        KeyError: no examples in a form this reads.
    """
    if f"{prefix}example_index" in arrays:
        bank = arrays["image_bank_uint8"]
        images = bank[arrays[f"{prefix}example_index"]]
        images = images[..., None] if bank.ndim == 3 else images
    elif f"{prefix}examples_uint8" in arrays:
        images = arrays[f"{prefix}examples_uint8"]
    elif f"{prefix}examples" in arrays:
        images = arrays[f"{prefix}examples"]
        if images.ndim - prefix.count("/") <= 2:
            return golden.tensor(images)
    else:
        raise KeyError(f"no {prefix}examples, {prefix}examples_uint8 or {prefix}example_index")
    images = images.astype(np.float32) / np.float32(golden.divisor(stem, arrays))
    return golden.tensor(np.moveaxis(images, -1, -3))


class ModelCase:
    """One recorded model: its settings, arrays, inputs and our copy of it."""

    def __init__(self, golden: Golden, stem: str, case: Mapping[str, Any], arrays: Arrays) -> None:
        self.golden, self.stem, self.case, self.arrays = golden, stem, case, arrays
        self.examples = read_examples(golden, stem, arrays)
        self.labels = golden.tensor(arrays["labels"])
        self.concatenate = bool(case["embedding"].get("concatenate_labels", False))
        self.w_interim = float(case.get("w_interim", 0.0))
        self.skip_grad = golden.names("bounds", "skip_grad_of")

    @property
    def is_resnet(self) -> bool:
        """Whether images go through the ResNet."""
        return self.case["embedding"].get("example_encoding", "resnet") == "resnet"

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of image examples."""
        if not self.examples.is_floating_point():
            return None
        channels, height, width = self.examples.shape[-3:]
        return channels, height, width

    def build(self) -> nn.Module:
        """Return a fresh model on the device, with the recorded weights and initial state."""
        model = self.blank()
        state = under(self.arrays, "state0/")
        load_jax_weights(model, under(self.arrays, "params/"), state or None)
        return model

    def blank(self) -> nn.Module:
        """Return a freshly initialised model on the device."""
        case = self.case
        model = build_model(
            case["seq_model"],
            embedding=case["embedding"],
            model=case["model"],
            example_shape=self.shape,
        )
        return model.to(self.golden.device)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss with the case's settings."""
        return icl_loss(logits, labels, self.w_interim, concatenate_labels=self.concatenate)

    def exact_pass(self, watch: KinkWatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the parameters of a training pass in float64, made within ``watch``.

        In contiguous layout and on a CPU.
        """
        model = self.build().double().cpu().train()
        for module in model.modules():
            if isinstance(module, ResNetEncoder):
                module.channels_last = False
        examples = self.examples.cpu()
        if examples.is_floating_point():
            examples = examples.double()
        labels = self.labels.cpu()
        with watch:
            loss = self.loss(model(examples, labels), labels)
        return loss, dict(model.named_parameters())

    def skipped(self, name: str) -> bool:
        """Whether ``meta.json`` declares a parameter's gradient to be rounding noise."""
        matching = {p for p in self.skip_grad if fnmatch.fnmatch(name, p)}
        self.golden.met |= matching
        return bool(matching)

    def random_parts(self) -> tuple[bool, bool]:
        """Whether dropout acts (in training, also in evaluation)."""
        embedding, model = self.case["embedding"], self.case["model"]
        always = bool(embedding.get("example_dropout_prob"))
        transformer = self.case["seq_model"] == "transformer"
        training = bool(embedding.get("positional_dropout_prob")) or (
            transformer and bool(model.get("dropout_prob"))
        )
        return always or training, always
