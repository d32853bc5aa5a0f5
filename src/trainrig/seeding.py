"""Seeds and random states: one seed in, every random number in a run determined.

Three generators exist in a run: Python's, NumPy's legacy global one (the reference samples from
both) and torch's. Anything that can be a pure function of (seed, step) is one, through
``derive_seed``; what cannot (dropout) is captured with each checkpoint. Initial values are drawn
within ``PortableDraws``, so that one seed gives the same bits on every CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def derive_seed(*parts: int | str) -> int:
    """Hash any mixture of integers and strings into one seed in [0, 2**63).

    >>> derive_seed(1, "holdout", 20) == derive_seed(1, "holdout", 20)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (every device) with ``seed`` >= 0."""
    if seed < 0:
        raise ValueError(f"seed: {seed} is negative; give an integer >= 0")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


#: Numbers that torch draws together: 8 radii and 8 angles make 16 normal numbers.
_NORMALS_AT_ONCE = 16


class PortableDraws(TorchDispatchMode):
    """Within it, normal and uniform draws of float32 tensors give one result on every CPU.

    These are ``normal_``, ``uniform_``, ``torch.randn``, ``torch.randn_like`` and ``torch.normal``
    of two numbers.

    torch draws the same bits everywhere, but turns them into numbers with float32 logarithms,
    cosines and products that differ in their last bits between vector instruction sets (and
    between x86 and ARM). Here the same numbers are computed in float64 and rounded: within some
    1e-7 of torch's, from the same stream, which is left in the same state. What builds a
    network draws its initial values within. Other types and devices are left to torch.

    >>> _ = torch.manual_seed(0)
    >>> with PortableDraws():
    ...     drawn = torch.empty(100).normal_()
    >>> _ = torch.manual_seed(0)
    >>> torch.allclose(drawn, torch.empty(100).normal_(), atol=1e-6)
    True
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Draw in float64 where that is asked for; pass everything else on."""
        kwargs = dict(kwargs or {})
        aten = torch.ops.aten
        if func in (aten.randn.default, aten.randn.generator):
            func, args, kwargs = _in_place(torch.empty, args[0], [0.0, 1.0], kwargs)
        elif func is aten.randn_like.default:
            func, args, kwargs = _in_place(torch.empty_like, args[0], [0.0, 1.0], kwargs)
        elif func is aten.normal.float_float:
            mean, std, size = args
            func, args, kwargs = _in_place(torch.empty, size, [mean, std], kwargs)
        fills: dict[Any, Callable[..., Tensor]] = {
            aten.normal_.default: _normal,
            aten.uniform_.default: _uniform,
        }
        fill = fills.get(func)
        if fill is None or args[0].dtype != torch.float32 or args[0].device.type != "cpu":
            return func(*args, **kwargs)
        tensor, *limits = args
        generator = kwargs.pop("generator", None)
        drawn = fill(tensor.numel(), generator, *limits, **kwargs)
        return tensor.copy_(drawn.view(tensor.shape))


def _in_place(
    empty: Callable[..., Tensor], like: Any, limits: list[float], kwargs: dict[str, Any]
) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the call of ``normal_`` that does what a call that makes a new tensor would do."""
    generator = {"generator": kwargs.pop("generator", None)}
    return torch.ops.aten.normal_.default, (empty(like, **kwargs), *limits), generator


def _uniform(
    count: int,
    generator: torch.Generator | None,
    low: float = 0.0,
    high: float = 1.0,
    **named: float,
) -> Tensor:
    """Return ``count`` numbers from [low, high), float64; the limits are rounded as torch's are."""
    start, end = (float(np.float32(x)) for x in (named.get("from", low), named.get("to", high)))
    width = float(np.float32(end - start))
    return torch.rand(count, generator=generator).double() * width + start


def _normal(
    count: int, generator: torch.Generator | None, mean: float = 0.0, std: float = 1.0
) -> Tensor:
    """Return ``count`` normal numbers, float64, by the Box-Muller transform of uniform ones."""
    if count < _NORMALS_AT_ONCE:  # torch draws these one by one, in float64
        return torch.empty(count).normal_(mean, std, generator=generator).double()
    normals = torch.rand(count, generator=generator).double()
    whole = count - count % _NORMALS_AT_ONCE
    normals[:whole] = _box_muller(normals[:whole])
    if whole < count:  # what is left over is drawn again, with what comes before it
        again = torch.rand(_NORMALS_AT_ONCE, generator=generator).double()
        normals[-_NORMALS_AT_ONCE:] = _box_muller(again)
    return normals * std + mean


def _box_muller(uniform: Tensor) -> Tensor:
    first, second = uniform.view(-1, 2, _NORMALS_AT_ONCE // 2).unbind(1)
    radius, angle = (-2.0 * torch.log1p(-first)).sqrt(), 2.0 * math.pi * second
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1).flatten()


def make_deterministic() -> None:
    """Choose deterministic kernels everywhere; must run before the first CUDA call."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Otherwise every new tensor is filled before it is written, which is for finding bugs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # unlisted
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextlib.contextmanager
def deterministic_kernels(device: torch.device | str) -> Iterator[None]:
    """Within, a GPU takes deterministic kernels; for code whose process decides otherwise.

    Sums by atomic additions come out in another order each time. On a CPU nothing changes.
    """
    if torch.device(device).type != "cuda" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined] # unlisted
    cudnn = torch.backends.cudnn.deterministic
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    make_deterministic()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined] # unlisted
        torch.backends.cudnn.deterministic = cudnn


def capture_rng(device: torch.device | str | None = None) -> dict[str, Any]:
    """Return the random states of a run as tensors and builtins, so that safe loading accepts them.

    Args:
        device: of the run; the generators of other GPUs are left out. None is the present GPU if
            this process uses one.
    """
    legacy: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = legacy
    index = _cuda_index(device)
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": [] if index is None else [torch.cuda.get_rng_state(index)],
    }


def restore_rng(state: dict[str, Any], device: torch.device | str | None = None) -> None:
    """Undo what happened to the generators since ``capture_rng`` of the same device."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    # A checkpoint may have been loaded onto the device.
    keys = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    index = _cuda_index(device)
    if state["cuda"] and index is not None:
        own = state["cuda"][0 if len(state["cuda"]) == 1 else index]  # older files hold all GPUs'
        torch.cuda.set_rng_state(own.cpu(), index)


class OwnRandomness:
    """The random states of one of several runs that take turns in a process.

    On CUDA the state is an object of its own, which a captured graph holds on to: its replays draw
    from it whoever's turn it is.

    Args:
        device: of the run.
    """

    _owner: OwnRandomness | None = None

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._saved: dict[str, Any] | None = None
        self._generator: torch.Generator | None = None
        index = _cuda_index(device)
        if index is not None:
            torch.cuda.init()
            default = torch.cuda.default_generators[index]
            self._default, self._generator = default, default.clone_state()

    def own(self) -> None:
        """Make the random states those of this run; what the last owner reached is kept for it."""
        last = OwnRandomness._owner
        if last is self:
            return
        if last is not None:
            last._saved = capture_rng("cpu")
        if self._generator is not None:
            self._default.graphsafe_set_state(self._generator)
        if self._saved is not None:
            restore_rng(self._saved, "cpu")
        OwnRandomness._owner = self


def _cuda_index(device: torch.device | str | None) -> int | None:
    """Return the number of a run's GPU; None on the CPU."""
    if device is None:
        return torch.cuda.current_device() if torch.cuda.is_initialized() else None
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
