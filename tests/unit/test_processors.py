"""What one seed determines has the same bits whatever vector instructions the processor has.

A child process for each setting computes everything and prints a digest of each; the digests are
compared. Training itself is not among it: its sums may round differently.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from trainrig.proof import LIBRARY_LIMITS, capabilities, own_capability

SEED = 7
#: NumPy's names of features above the oldest x86-64 baseline, and of its older releases.
NUMPY_FEATURES = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512_SKX"


def positions() -> dict[str, torch.Tensor]:
    from pytorch_port.model.embedding import sinusoid_positions

    return {f"{t}x{e}": sinusoid_positions(t, e) for t, e in ((17, 64), (9, 128), (401, 96))}


def learning_rates() -> dict[str, torch.Tensor]:
    from trainrig.optim.schedules import warmup_rsqrt

    schedule = warmup_rsqrt(3e-4, 4000)
    return {"rates": torch.tensor([schedule(step) for step in range(0, 20_000, 7)])}


def image_sets() -> dict[str, torch.Tensor]:
    from trainrig.data.glyphs import draw_strokes, render
    from trainrig.data.shapes import draw_shapes

    glyphs = render(draw_strokes(40, 5, SEED), 28)
    return {"glyphs": glyphs, "shapes": draw_shapes(200, SEED)[0]}


def small_images() -> dict[str, torch.Tensor]:
    from trainrig.data.image_bank import downsample_images

    images = torch.randint(0, 2, (10, 105, 105), generator=torch.Generator().manual_seed(SEED))
    return {"downsampled": downsample_images(images.to(torch.uint8) * 255, False)}


def simulated_scan() -> dict[str, np.ndarray]:
    from ptycho_torch.physics.simulate import SimulationSettings, simulate

    found = {}
    for scan, content in (("raster", "mixed"), ("random", "field"), ("spiral", "star")):
        settings = SimulationSettings(size=64, rows=4, scan=scan, object=content, modes=2)
        arrays = {k: v for k, v in simulate(settings).items() if v.dtype.kind != "U"}
        found |= {f"{scan}/{name}": array for name, array in arrays.items()}
    return found


def windows() -> dict[str, torch.Tensor]:
    from ptycho_torch.physics.forward import hard_mask, soft_mask

    return {"hard": hard_mask(64), "soft": soft_mask(64).float()}


def generated_problems() -> dict[str, torch.Tensor]:
    from deepobs.pytorch.datasets.quadratic import quadratic
    from deepobs.pytorch.testproblems._quadratic import make_hessian

    points = {f"test/{i}": batch[0] for i, batch in enumerate(quadratic(100).test)}
    return {**points, "hessian": torch.from_numpy(make_hessian()).float()}


def new_tensors() -> dict[str, torch.Tensor]:
    """What an experiment of one's own may draw its initial values by."""
    from trainrig.seeding import PortableDraws

    torch.manual_seed(SEED)
    with PortableDraws():
        return {
            "randn": torch.randn(1000),
            "generator": torch.randn(1000, generator=torch.Generator().manual_seed(SEED)),
            "randn_like": torch.randn_like(torch.empty(40, 25)),
            "normal": torch.normal(1.0, 0.02, (1000,)),
            "parameter": torch.randn(40, 25) * 0.02,
        }


def networks() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    from deepobs.pytorch import testproblems
    from optimizer_quality.models import build_model as build_cifar
    from ptycho_torch.config.canonical import ModelConfig, TrainingConfig
    from ptycho_torch.config.execution import ExecutionConfig
    from ptycho_torch.train.workflows import build_model as build_ptycho
    from pytorch_port.model.sequence_models import build_model

    def icl(kind: str, encoding: str, **sizes: int) -> Callable[[], nn.Module]:
        return lambda: build_model(
            kind,
            embedding={"emb_dim": 64, "example_encoding": encoding},
            model={"num_classes": 30, "num_layers": 1, **sizes},
            example_shape=(1, 28, 28),
        )

    yield "icl resnet", icl("transformer", "resnet", num_heads=2)
    yield "icl conv", icl("transformer", "conv", num_heads=2)
    yield "icl lstm", icl("lstm", "linear", hidden_size=32)
    yield "icl rnn", icl("vanilla_rnn", "embedding", hidden_size=32)
    options = {"in_channels": 3, "precision": "fp32", "channels_last": True}
    yield "cifar", lambda: build_cifar("resnet8", 10, **options)
    for name in ("mnist_mlp", "mnist_2c2d", "mnist_vae", "cifar10_3c3d", "tolstoi_char_rnn"):

        def deepobs(name: str = name) -> nn.Module:
            problem = getattr(testproblems, name)(8)
            problem.set_up_net("cpu")
            return problem.net

        yield name, deepobs
    config = TrainingConfig(model=ModelConfig(N=64))
    yield "ptycho", lambda: build_ptycho(config, ExecutionConfig(seed=SEED)).net


def initial_values() -> dict[str, torch.Tensor]:
    found = {}
    for name, build in networks():
        torch.manual_seed(SEED)
        found |= {f"{name}/{key}": value for key, value in build().state_dict().items()}
    return found


PARTS = (
    positions,
    learning_rates,
    image_sets,
    small_images,
    simulated_scan,
    windows,
    generated_problems,
    new_tensors,
    initial_values,
)


def digests() -> dict[str, str]:
    """Return a digest of every array of every part."""
    found = {}
    for part in PARTS:
        for name, value in part().items():
            array = value.detach().numpy() if isinstance(value, torch.Tensor) else value
            digest = hashlib.sha256(np.ascontiguousarray(array).tobytes())
            found[f"{part.__name__}/{name}"] = digest.hexdigest()
    return found


def settings() -> dict[str, dict[str, str]]:
    """Return the variables of every setting that this processor has, by name."""
    own = own_capability()
    found = {
        capability: {
            "ATEN_CPU_CAPABILITY": capability,
            "OMP_NUM_THREADS": "2" if capability == own else "1",
            **LIBRARY_LIMITS.get(capability, {}),
        }
        for capability in capabilities(own)
    }
    found["default"]["NPY_DISABLE_CPU_FEATURES"] = NUMPY_FEATURES
    return found


def test_what_a_seed_determines_does_not_depend_on_the_processor():
    plain = {
        key: value
        for key, value in os.environ.items()
        if key not in ("ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES")
    }
    results = {}
    for name, variables in settings().items():
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__],
            env={**plain, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results[name] = json.loads(done.stdout)
    (first, expected), *others = results.items()
    assert len(expected) > 200  # tensors of all systems
    for name, found in others:
        assert found.keys() == expected.keys()
        wrong = [key for key in expected if found[key] != expected[key]]
        assert not wrong, f"{name} differs from {first} in {len(wrong)}: {wrong[:5]}"


if __name__ == "__main__":
    print(json.dumps(digests()))
