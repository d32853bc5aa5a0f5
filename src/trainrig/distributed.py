"""One run in several processes, each with its share of every batch (``torchrun``).

All processes draw the same global batch, which is a pure function of its number, and take their own
rows of it; gradients are averaged before each update, so that all weights stay equal. Process 0
leads: it alone logs, evaluates and saves. The others follow: at the start they receive the leader's
weights, optimizer and random states, so that one checkpoint serves all (another number of processes
must be forced, see ``trainrig.runs``); before each batch they are told whether to continue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from trainrig.optim.resume import load_optimizer, optimizer_state
from trainrig.processes import process_count
from trainrig.seeding import capture_rng, restore_rng
from trainrig.stopping import EXIT_CODES

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Batch = TypeVar("Batch", bound="DataclassInstance")


class Dismissed(Exception):  # noqa: N818 - an order, not an error
    """The leader has stopped, and so does a follower."""


@dataclass(frozen=True, slots=True)
class Team:
    """The processes of one run.

    Attributes:
        rank: of this process; 0 leads.
        size: how many.
    """

    rank: int
    size: int

    @property
    def leads(self) -> bool:
        """Whether this process logs, evaluates and saves."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """Return this process's rows of a global batch.

        Raises:
            ValueError: the rows cannot be shared evenly.
        """
        if batch_size % self.size:
            raise ValueError(
                f"batch size {batch_size}: not divisible among {self.size} processes; give a "
                f"multiple of {self.size}, or another --nproc-per-node"
            )
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def split(self, rows: list[int]) -> tuple[list[int], float]:
        """Return this process's rows of a global batch of any size, and the weight of their mean.

        The mean over the processes of the weighted means is the mean over the whole batch. Where
        there are fewer rows than processes, some take a row with weight 0.

        >>> Team(0, 2).split([7, 8, 9]), Team(1, 2).split([7, 8, 9])
        (([7], 0.6666666666666666), ([8, 9], 1.3333333333333333))
        """
        first, end = (len(rows) * rank // self.size for rank in (self.rank, self.rank + 1))
        return rows[first:end] or rows[:1], (end - first) * self.size / len(rows)

    def equalise(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, *, average: bool = True
    ) -> int:
        """Give the followers the leader's state; average all gradients before each update.

        Args:
            model: of this process.
            optimizer: of this process.
            step: that the leader continues after.
            average: whether to average; a caller that does something between the average and the
                update, such as clipping, does so itself (``average_gradients``).

        Returns:
            The leader's ``step``.
        """
        device = next(model.parameters()).device
        state = (model.state_dict(), optimizer_state(optimizer), capture_rng(device), step)
        weights, moments, rng, step = self.told(state)
        if not self.leads:
            model.load_state_dict(weights)
            load_optimizer(optimizer, moments)
            restore_rng(rng, device)
        self.train(optimizer if average else None)
        return step

    def told(self, value: T) -> T:
        """Return the leader's value."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def train(self, optimizer: torch.optim.Optimizer | None) -> None:
        """From here on average its gradients before each update; the leader listens to signals."""
        if not self.leads:
            for number in EXIT_CODES:
                signal.signal(number, signal.SIG_IGN)  # the leader saves, then dismisses
        if optimizer is not None:
            optimizer.register_step_pre_hook(lambda chosen, *_: average_gradients(chosen))

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Within, a follower does as the leader does, until that has finished or stopped.

        Raises:
            ChildProcessError: the leader is gone without a word.
        """
        try:
            yield
        except Dismissed:
            return
        except RuntimeError as error:
            # gloo raises a plain RuntimeError, as do faults of this process's own
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            reason = str(error).splitlines()[0]
            raise ChildProcessError(f"process {self.rank}: process 0 is gone ({reason})") from None

    def orders(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches, as long as the leader continues.

        Raises:
            Dismissed: the leader called ``dismiss`` in place of the next batch.
        """
        for batch in batches:
            if not self._go_on(True):
                raise Dismissed
            yield batch

    def shares(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield this process's rows of each batch, a dataclass of tensors.

        Raises:
            Dismissed: the leader called ``dismiss`` in place of the next batch.
        """
        for batch in self.orders(batches):
            names = [field.name for field in dataclasses.fields(batch)]
            rows = self.share(len(getattr(batch, names[0])))
            yield dataclasses.replace(batch, **{n: getattr(batch, n)[rows] for n in names})

    def dismiss(self) -> None:
        """Tell the followers, which wait for the next batch, that there is none."""
        self._go_on(False)

    def _go_on(self, value: bool) -> bool:
        word = torch.tensor(value)
        dist.broadcast(word, src=0)
        return bool(word)


def join_team() -> Team | None:
    """Join the processes that ``torchrun`` started, one GPU each; None where this one is alone."""
    if process_count() == 1:
        return None
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    return Team(dist.get_rank(), dist.get_world_size())


def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Replace every gradient by its mean over the processes, in one message."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"]]
    gradients = [gradient for gradient in found if gradient is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def together() -> bool:
    """Say whether several processes train one run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean(x: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes; itself where this one is alone."""
    return _averaged(x) if together() else x


def of_whole_batch(draw: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Draw random numbers for the rows of all processes, and return this one's.

    Args:
        draw: tensor → numbers of its shape, from a generator that stands alike in all processes;
            where several train one run it is given ones.
        like: this process's rows; the shares are of equal size.
    """
    if not together():
        return draw(like)
    rank, rows = dist.get_rank(), len(like)
    whole = draw(like.new_ones((rows * dist.get_world_size(), *like.shape[1:])))
    return whole[rank * rows : (rank + 1) * rows]


class Mean(torch.autograd.Function):
    """The mean of a tensor over the processes; ``Mean.apply(x)``.

    Its gradient is the mean of the processes' gradients: summed over the processes, as
    ``average_gradients`` does, it is that of the sum of all losses.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Average."""
        return _averaged(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Average the gradients."""
        return _averaged(gradient)


def _averaged(x: Tensor) -> Tensor:
    x = x.clone()
    dist.all_reduce(x)
    return x / dist.get_world_size()
