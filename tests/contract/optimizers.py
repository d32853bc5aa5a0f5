"""Optimizers as people write them, each with one habit that a training loop may fail on.

Named by dotted path (``optimizers.SignMomentum``) once this folder is on Python's path.
"""

from __future__ import annotations

import threading
from collections import deque

import torch
from torch.optim import Optimizer


class Stepwise(Optimizer):
    """Base: a step is ``update(p, group)`` for every parameter with a gradient, without closure."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, group)
        return loss

    def update(self, p, group):
        p.add_(p.grad, alpha=-group["lr"])


class SignMomentum(Stepwise):
    """The sign of a running mean of gradients."""

    def update(self, p, group):
        mean = self.state[p].setdefault("mean", torch.zeros_like(p))
        mean.mul_(0.9).add_(p.grad, alpha=0.1)
        p.add_(mean.sign(), alpha=-group["lr"])


class OwnRate(Stepwise):
    """Lowers its own learning rate after every step."""

    def step(self, closure=None):
        loss = super().step(closure)
        for group in self.param_groups:
            group["lr"] *= 0.9
        return loss


class ClosureIgnored(Stepwise):
    """Takes a closure, as the signature demands, and does not call it."""

    def step(self, closure=None):
        super().step()


class NoClosure(Stepwise):
    """Takes no closure."""

    def step(self):
        super().step()


class ClosureRequired(Optimizer):
    """Halves its step until the loss falls; must evaluate for itself."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        (group,) = self.param_groups
        trained = [p for p in group["params"] if p.grad is not None]
        start = [p.clone() for p in trained]
        gradients = [p.grad.clone() for p in trained]
        rate = group["lr"]
        for _ in range(4):
            for p, q, g in zip(trained, start, gradients, strict=True):
                p.copy_(q - rate * g)
            with torch.enable_grad():
                if closure() < loss:
                    break
            rate /= 2
        return loss


class SharpnessAware(Stepwise):
    """Climbs along the gradient that it finds, evaluates there, and steps from where it was."""

    def step(self, closure=None):
        if closure is None:
            raise RuntimeError("needs a closure")
        norm = torch.stack([p.grad.norm() for p in self.trained()]).norm()
        moves = [(p, p.grad * (0.05 / (norm + 1e-12))) for p in self.trained()]
        with torch.no_grad():
            for p, move in moves:
                p.add_(move)
        self.zero_grad()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for p, move in moves:
                p.sub_(move)
        super().step()
        self.zero_grad()

    def trained(self):
        return [p for g in self.param_groups for p in g["params"] if p.grad is not None]


class CounterAttribute(Stepwise):
    """Counts its steps in an attribute, which no ``state_dict`` holds."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        return super().step(closure)

    def update(self, p, group):
        p.add_(p.grad, alpha=-group["lr"] / self.count)


class GradientHistory(Stepwise):
    """Keeps the last three gradients of each parameter in a list of lists."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.past = [[] for group in self.param_groups for _ in group["params"]]

    def update(self, p, group):
        own = self.past[[id(q) for q in group["params"]].index(id(p))]
        own.append(p.grad.clone())
        del own[:-3]
        p.add_(torch.stack(own).mean(0), alpha=-group["lr"])


class ByParameter(Stepwise):
    """Keeps momentum in a dictionary by parameter and recent norms in a deque."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.momentum, self.norms = {}, deque(maxlen=5)

    def update(self, p, group):
        mean = self.momentum.setdefault(p, torch.zeros_like(p))
        mean.mul_(0.9).add_(p.grad)
        self.norms.append(float(p.grad.norm()))
        p.add_(mean, alpha=-group["lr"] / (1 + sum(self.norms) / len(self.norms)))


class ComplexState(Stepwise):
    """A rotating complex momentum."""

    def update(self, p, group):
        state = self.state[p]
        if "moment" not in state:
            state["moment"] = torch.zeros_like(p, dtype=torch.complex64)
        state["moment"].mul_(0.9 * torch.exp(torch.tensor(0.5j))).add_(p.grad)
        p.add_(state["moment"].real + state["moment"].imag, alpha=-group["lr"])


class DoubleState(Stepwise):
    """Sums of squares in float64, and a text and a nested list in its state."""

    def update(self, p, group):
        state = self.state[p]
        if not state:
            state |= {"sum": torch.zeros_like(p, dtype=torch.float64), "mode": "warm", "log": []}
        state["sum"].add_(p.grad.double().square())
        state["log"].append(p.grad.double().sum())
        del state["log"][:-2]
        scale = 1.0 if state["mode"] == "warm" else 0.5
        step = p.grad / (state["sum"].sqrt() + 1e-8) + 1e-3 * state["log"][0]
        p.add_(step.to(p.dtype), alpha=-scale * group["lr"])


class Nested(Optimizer):
    """Steps another optimizer, of whose momentum its own ``state_dict`` knows nothing."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.SGD(self.param_groups, lr=lr, momentum=0.9)
        self.param_groups = self.inner.param_groups

    def step(self, closure=None):
        return self.inner.step(closure)


class NoRate(Optimizer):
    """Has neither a learning rate nor a weight decay: normalised by the gradients so far."""

    def __init__(self, params, eps=1e-8):
        super().__init__(params, {"eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    total = self.state[p].setdefault("total", torch.zeros_like(p))
                    total.add_(p.grad.square())
                    p.sub_(0.01 * p.grad / (total.sqrt() + group["eps"]))


class CurvatureScaled(Stepwise):
    """Divides by the diagonal of the Hessian along a random sign vector."""

    create_graph = True

    def step(self, closure=None):
        trained = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        signs = [torch.randint(0, 2, p.shape, device=p.device) * 2.0 - 1.0 for p in trained]
        products = torch.autograd.grad(
            [p.grad for p in trained], trained, signs, retain_graph=True, allow_unused=True
        )
        for p, z, hz in zip(trained, signs, products, strict=True):
            self.state[p]["curvature"] = (z * (z * 0 if hz is None else hz)).detach().abs()
        super().step()

    def update(self, p, group):
        p.add_(p.grad / (self.state[p]["curvature"] + 0.1), alpha=-group["lr"])


class Averaging(Stepwise):
    """Evaluates the mean of all weights so far, and trains on the last."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.param_groups[0]["training"] = False
        self.param_groups[0]["steps"] = 0

    def train(self):
        self._swap(True)

    def eval(self):
        self._swap(False)

    @torch.no_grad()
    def _swap(self, training):
        if self.param_groups[0]["training"] == training:
            return
        self.param_groups[0]["training"] = training
        for group in self.param_groups:
            for p in group["params"]:
                if "mean" in self.state[p]:
                    other = self.state[p]["mean"].clone()
                    self.state[p]["mean"].copy_(p)
                    p.copy_(other)

    def step(self, closure=None):
        if not self.param_groups[0]["training"]:
            raise RuntimeError("call train() before step()")
        self.param_groups[0]["steps"] += 1
        super().step(closure)

    def update(self, p, group):
        super().update(p, group)
        mean = self.state[p].setdefault("mean", p.clone())
        mean.lerp_(p, 1.0 / self.param_groups[0]["steps"])


class Hooked(Stepwise):
    """Evaluates the batch once more after each update, and shrinks its rate where it rose."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.last, self.factor = float("inf"), 1.0

    def after_step(self, step, closure):
        loss = float(closure())
        self.factor *= 0.5 if loss > self.last else 1.0
        self.last = loss

    def update(self, p, group):
        p.add_(p.grad, alpha=-group["lr"] * self.factor)


class OwnGenerator(Stepwise):
    """Adds noise from a generator of its own."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.generator = torch.Generator().manual_seed(3)

    def update(self, p, group):
        noise = torch.randn(p.shape, generator=self.generator).to(p.device)
        p.add_(p.grad + 0.01 * noise, alpha=-group["lr"])


class GlobalNoise(Stepwise):
    """Adds noise from torch's generator."""

    def update(self, p, group):
        p.add_(p.grad + 0.01 * torch.randn_like(p), alpha=-group["lr"])


# --- what no checkpoint can hold: refused at the first one, in a sentence ---


class Memory:
    """Not plain data."""

    def __init__(self):
        self.lock, self.count = threading.Lock(), 0


class OpaqueAttribute(Stepwise):
    """Replaces an object of its own class at every step."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.memory = Memory()

    def step(self, closure=None):
        count, self.memory = self.memory.count + 1, Memory()
        self.memory.count = count
        return super().step(closure)

    def update(self, p, group):
        p.add_(p.grad, alpha=-group["lr"] / self.memory.count)


class HiddenCounter(Stepwise):
    """Changes an object in place, which looks unchanged from outside."""

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.memory = type("Box", (), {"count": 0})()

    def step(self, closure=None):
        self.memory.count += 1
        return super().step(closure)

    def update(self, p, group):
        p.add_(p.grad, alpha=-group["lr"] / self.memory.count)


class ClassCounter(Stepwise):
    """Counts in the class, which all optimizers of a process share."""

    count = 0

    def step(self, closure=None):
        type(self).count += 1
        return super().step(closure)

    def update(self, p, group):
        p.add_(p.grad, alpha=-group["lr"] / type(self).count)


class ForgetsOnSave(SignMomentum):
    """Leaves its momentum out of what it saves."""

    def state_dict(self):
        return {**super().state_dict(), "state": {}}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)


class WantsTheLoss(Stepwise):
    """Must be told the loss: no loop knows that."""

    def step(self, loss, labels):
        super().step()


RESUMED = (
    SignMomentum,
    OwnRate,
    ClosureIgnored,
    NoClosure,
    ClosureRequired,
    SharpnessAware,
    CounterAttribute,
    GradientHistory,
    ByParameter,
    ComplexState,
    DoubleState,
    Nested,
    NoRate,
    CurvatureScaled,
    Averaging,
    Hooked,
    OwnGenerator,
    GlobalNoise,
)
"""Classes that every system trains and resumes bit for bit."""

HABITS = (
    SignMomentum,
    OwnRate,
    ClosureIgnored,
    ClosureRequired,
    CounterAttribute,
    GradientHistory,
    ComplexState,
    ByParameter,
)
"""Those of them that are killed in every system as well."""

REFUSED = {
    OpaqueAttribute: "keeps a Memory in 'memory', which changed since it was built",
    HiddenCounter: "could not be resumed exactly",
    ClassCounter: "changes the class attribute",
    ForgetsOnSave: "could not be resumed exactly",
    WantsTheLoss: "a trial of its step fails",
}
"""Classes that are refused, and a part of the sentence."""
