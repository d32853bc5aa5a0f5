"""The two-layer LSTM over characters.

Legend: B batch, T = 50 time steps, H hidden units, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepobs.pytorch.testproblems._initialisers import glorot_uniform_
from deepobs.pytorch.testproblems._layers import Dropout

State = list[tuple[Tensor, Tensor]]


class LSTMLayer(nn.Module):
    """TensorFlow's LSTM cell over a sequence: one bias vector, forget bias 1 added inside the gate.

    Gates are in PyTorch's order (input, forget, candidate, output). The second bias vector that
    PyTorch's kernel wants is a constant buffer holding the forget bias: it is no parameter, so the
    effective learning rate of the bias is not doubled.
    """

    forget_bias: Tensor

    def __init__(self, n_in: int, n_hidden: int) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        # TensorFlow draws one joint (in + hidden, 4 hidden) kernel.
        limit = math.sqrt(6 / (n_in + n_hidden + 4 * n_hidden))
        self.weight_ih = nn.Parameter(torch.empty(4 * n_hidden, n_in).uniform_(-limit, limit))
        self.weight_hh = nn.Parameter(torch.empty(4 * n_hidden, n_hidden).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.zeros(4 * n_hidden))
        forget = torch.zeros(4, n_hidden)
        forget[1] = 1.0
        self.register_buffer("forget_bias", forget.flatten(), persistent=False)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return (outputs (B, T, H), c (B, H), h (B, H)) from inputs (B, T, n_in) and (c, h)."""
        c, h = state
        parameters = [self.weight_ih, self.weight_hh, self.bias, self.forget_bias]
        output, h, c = torch.lstm(
            x, (h[None], c[None]), parameters, True, 1, 0.0, self.training, False, True
        )
        return output, c[0], h[0]


class CharRNN(nn.Module):
    """Embedding, two LSTM layers with dropout on each input and output, dense layer."""

    def __init__(self, vocabulary: int = 83, n_hidden: int = 128, keep: float = 0.8) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        self.embedding = nn.Embedding(vocabulary, n_hidden)
        glorot_uniform_(self.embedding.weight)
        self.cell_0 = LSTMLayer(n_hidden, n_hidden)
        self.cell_1 = LSTMLayer(n_hidden, n_hidden)
        self.rnnlm = nn.Linear(n_hidden, vocabulary)
        glorot_uniform_(self.rnnlm.weight)
        glorot_uniform_(self.rnnlm.bias)  # the default of a variable without initialiser
        self.dropouts = nn.ModuleList(Dropout(1 - keep) for _ in range(4))

    def zero_state(self, batch_size: int) -> State:
        """Return [(c, h), (c, h)] of zeros, (B, H) each."""
        zeros = self.rnnlm.weight.new_zeros(batch_size, self.n_hidden)
        return [(zeros, zeros), (zeros, zeros)]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return logits (B, T, V) of character numbers (B, T), and the new state, detached."""
        h, new_state = self.embedding(x), []
        for i, cell in enumerate((self.cell_0, self.cell_1)):
            h, c_last, h_last = cell(self.dropouts[2 * i](h), state[i])
            h = self.dropouts[2 * i + 1](h)
            new_state.append((c_last.detach(), h_last.detach()))
        return self.rnnlm(h), new_state
