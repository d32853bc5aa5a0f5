"""Run at the start of every Python on the null GPU: marks steps, and lets numbers be read.

Kernels compute nothing, so what lies in memory is garbage, and a program that stops at a NaN would
end at once. Therefore a number that Python reads from a device tensor is 1; the copy and the wait
happen and are counted. A truth value is true, but that of ``any`` is false.
"""

from __future__ import annotations

import ctypes

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

Tensor = torch.Tensor
READ = {
    name: getattr(Tensor, name) for name in ("item", "tolist", "__bool__", "__float__", "__int__")
}
TYPES = {"__bool__": bool, "__float__": float, "__int__": int}


def on_device(tensor: Tensor) -> bool:
    return tensor.is_cuda and type(tensor) in (Tensor, torch.nn.Parameter)


def one(tensor: Tensor) -> bool | int | float | complex:
    if tensor.dtype == torch.bool:
        return not getattr(tensor, "of_any", False)
    return 1.0 if tensor.is_floating_point() else 1j if tensor.is_complex() else 1


def item(tensor: Tensor) -> object:
    value = READ["item"](tensor)
    return one(tensor) if on_device(tensor) else value


def tolist(tensor: Tensor) -> object:
    value = READ["tolist"](tensor)
    if on_device(tensor):
        value = one(tensor)
        for size in reversed(tensor.shape):
            value = [value] * size
    return value


def conversion(name: str):
    def convert(tensor: Tensor) -> object:
        if on_device(tensor) and tensor.numel() == 1:
            return TYPES[name](item(tensor))
        return READ[name](tensor)

    return convert


def remembering(any_):
    def reduce(*args, **kwargs):
        result = any_(*args, **kwargs)
        if isinstance(result, Tensor) and result.is_cuda:
            result.of_any = True
        return result

    return reduce


Tensor.item, Tensor.tolist = item, tolist
for _name in TYPES:
    setattr(Tensor, _name, conversion(_name))
Tensor.any, torch.any = remembering(Tensor.any), remembering(torch.any)

# The library marks each replay of a graph by itself.
_mark = ctypes.CDLL(None).null_gpu_mark
register_optimizer_step_post_hook(lambda *_: _mark())
