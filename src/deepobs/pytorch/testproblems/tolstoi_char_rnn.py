"""The character-level LSTM on War and Peace."""

from __future__ import annotations

from torch import nn

from deepobs.pytorch.datasets import DataSet, tolstoi
from deepobs.pytorch.datasets.loaders import Batch
from deepobs.pytorch.testproblems._char_rnn import CharRNN, State
from deepobs.pytorch.testproblems._families import batch_accuracy
from deepobs.pytorch.testproblems.testproblem import LossAndAccuracy, TestProblem
from trainrig.data.tolstoi import VOCABULARY


class tolstoi_char_rnn(TestProblem):  # noqa: N801 - DeepOBS name
    """Cross-entropy per character, averaged over the 50 steps of each example.

    The state is carried, detached, from batch to batch of a pass, and starts at zero in each pass.
    """

    net: CharRNN
    state: State | None = None

    def make_data(self) -> DataSet:
        """Return the text."""
        return tolstoi(self.batch_size)

    def make_net(self) -> nn.Module:
        """Return the network for the text's vocabulary (83 where no text was loaded)."""
        data = getattr(self, "data", None)
        return CharRNN(VOCABULARY if data is None else data.vocabulary)

    def reset_state(self) -> None:
        """Start the next batch from zeros."""
        self.state = None

    def carried_state(self) -> State | None:
        """Return the LSTM states after the last batch."""
        return self.state

    def restore_carried_state(self, state: State | None) -> None:
        """Continue from ``carried_state``."""
        self.state = None if state is None else [(c, h) for c, h in state]

    def forward_losses(self, batch: Batch, *, accuracy: bool) -> LossAndAccuracy:
        """Return the losses (B,) and the share of characters hit."""
        x, y = batch
        state = self.net.zero_state(len(x)) if self.state is None else self.state
        logits, self.state = self.net(x, state)  # (B, T, V)
        losses = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        return losses.view(y.shape).mean(1), batch_accuracy(logits, y) if accuracy else None
