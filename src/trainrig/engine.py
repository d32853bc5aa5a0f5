"""How a training step is carried out: eagerly, compiled, or as one CUDA graph.

A graph replays batch, forward pass, backward pass and update without a kernel being launched from
Python, so nothing in it may wait for the host: batches come from a ``BatchSource``, the learning
rate and the optimizer's counters are tensors on the device. The results lie where they were
captured and are overwritten by the next step.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor, nn

from trainrig.errors import nearest
from trainrig.optim.needs import needs_of
from trainrig.optim.torch_builtin import FUSED
from trainrig.profiling import mark_step
from trainrig.seeding import capture_rng, restore_rng
from trainrig.updates import Batches, LossFunction, Updated

Engine = Literal["eager", "compile", "graph"]
WARM_UPS = 3


class Chosen(NamedTuple):
    """The engine of a run, and why it is this one."""

    engine: Engine
    reason: str

    def describe(self, device: torch.device, *, streams: int = 1) -> dict[str, Any]:
        """Return what ``environment.json`` says of it; on CUDA with streams and memory."""
        described: dict[str, Any] = self._asdict()
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            described |= {"streams": streams, "free_bytes": free, "total_bytes": total}
        return described


class BatchSource(Protocol):
    """Batches in two parts: what the host does before a step, and what the step does itself."""

    @property
    def generators(self) -> Iterable[torch.Generator]:
        """Generators that ``make`` draws from."""

    def prepare(self, number: int) -> None:
        """Let the next ``make`` return batch ``number``; must not wait for the device."""

    def make(self) -> Any:
        """Return the batch by operations on the device alone, always of the same shapes."""


def check_engine(engine: str, device: torch.device) -> None:
    """Refuse an engine that does not exist, or not on this device.

    Raises:
        ValueError: saying what can be used instead.
    """
    known = get_args(Engine)
    if engine not in known:
        raise ValueError(
            f"--engine {engine}: unknown{nearest(engine, known)}; accepted: {', '.join(known)}"
        )
    if engine == "graph" and device.type != "cuda":
        raise ValueError(
            f"--engine graph: captures a CUDA graph, but the run is on {device.type}; "
            "use --engine eager or compile, or a CUDA device"
        )


def check_compilable(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer that compiled code cannot serve.

    Raises:
        ValueError: it differentiates the gradient again.
    """
    if needs_of(optimizer).create_graph:
        raise ValueError(
            f"engine compile: cannot serve {type(optimizer).__name__}, which differentiates the "
            "gradient again; use engine eager"
        )


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Put an optimizer's learning rates and step counters on the device, as a graph needs them.

    Raises:
        ValueError: an optimizer whose update cannot be captured so.
    """
    if type(optimizer) not in FUSED:
        accepted = ", ".join(kind.__name__ for kind in FUSED)
        raise ValueError(
            f"--engine graph: cannot capture {type(optimizer).__name__}; it is known to work for "
            f"{accepted}; use --engine eager"
        )
    for group in optimizer.param_groups:
        if group.get("dampening"):
            raise ValueError(
                f"--engine graph: cannot capture {type(optimizer).__name__} with dampening "
                f"{group['dampening']}, whose first step differs; use --engine eager"
            )
        group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device).clone()
        if "capturable" in group:
            group["capturable"] = True
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32, device=device)


Step = Callable[[], tuple[Tensor, Any]]
Capture = Callable[[Step, Iterable[torch.Generator]], tuple[Callable[[], None], Tensor, Any]]


def capture_graph(
    step: Step, generators: Iterable[torch.Generator]
) -> tuple[Callable[[], None], Tensor, Any]:
    """Capture ``step`` as a CUDA graph.

    Args:
        step: performs one optimizer step and returns its loss and output; called a few times first,
            on a side stream, to create the optimizer's state and the libraries' workspaces.
        generators: that ``step`` draws from, beside the device's own.

    Returns:
        What replays the step, and the tensors that a replay writes.
    """
    current = torch.cuda.current_stream()
    stream = _warm_up_stream(current.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            step()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        for generator in generators:  # newer torch registers them by itself
            graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            loss, output = step()
    except BaseException:
        torch.cuda.set_stream(current)  # a capture that fails leaves its own stream behind
        raise
    torch.cuda.empty_cache()  # what the first steps took; the graph has memory of its own
    return graph.replay, loss, output


@functools.cache
def _warm_up_stream(device: torch.device) -> torch.cuda.Stream:
    """Return one stream for all captures: torch has 32, and every run takes one."""
    return torch.cuda.Stream(device)


class GraphedUpdate:
    """One optimizer step, captured: an update of ``train_steps``, whose batches are numbers.

    Args:
        model: trained in place, on a CUDA device.
        optimizer: of its parameters, Adam, AdamW or SGD.
        source: of its batches.
        loss_fn: ``(model, batch) -> (scalar loss, anything)``, without host synchronisation.
        number: of a batch to capture with; the step is not performed.
        capture: records a step; tests replace it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        source: BatchSource,
        loss_fn: Callable[[nn.Module, Any], tuple[Tensor, Any]],
        *,
        number: int = 0,
        capture: Capture = capture_graph,
    ) -> None:
        make_capturable(optimizer, next(model.parameters()).device)
        self._source = source
        restore = _remember(model, optimizer)
        source.prepare(number)

        def step() -> tuple[Tensor, Any]:
            model.train()
            optimizer.zero_grad(set_to_none=True)  # the graph allocates gradients of its own
            loss, output = loss_fn(model, source.make())
            loss.backward()
            optimizer.step()
            return loss.detach(), output

        self._replay, self._loss, self._output = capture(step, source.generators)
        restore()

    def __call__(
        self, step: int, model: Any, optimizer: Any, loss_fn: LossFunction, batches: Batches
    ) -> Updated:
        """Perform the step on the batch of the number in ``batches``.

        Returns before the device has finished; loss and output lie where the next step overwrites
        them.
        """
        for number in batches:
            self._source.prepare(number)
        self._replay()
        mark_step(self)
        return Updated(self._loss, self._output)


def _remember(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """Return what puts parameters, buffers, optimizer state and random states back in place.

    State that did not exist becomes zero, which is how the optimizers of ``FUSED`` begin.
    """
    tensors = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
    states = {
        parameter: {k: v.clone() for k, v in state.items() if isinstance(v, Tensor)}
        for parameter, state in optimizer.state.items()
    }
    device = next(model.parameters()).device
    random = capture_rng(device)

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in tensors:
            tensor.copy_(value)
        for parameter, state in optimizer.state.items():
            saved = states.get(parameter, {})
            for key, tensor in state.items():
                if isinstance(tensor, Tensor):
                    tensor.copy_(saved[key]) if key in saved else tensor.zero_()
        restore_rng(random, device)

    return restore
