"""Row LSTM and Diagonal BiLSTM: their fields, the two faults of public code, and what a sample costs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metadensity.models import DiagonalBiLSTM, RowLSTM
from metadensity.nn.functional.lstm_scan import Sweep, lstm_scan
from metadensity.nn.recurrent import DiagonalLayer
from metadensity.sampling import recurrent
from metadensity.testing import checks_density
from metadensity.testing.subjects import Subject, randomise

SMALL: dict[str, Any] = {"planes": 4, "penultimate": 6, "first_kernel": 3}


def subject(kind: type[Any], shape: tuple[int, ...], layers: int, **options: Any) -> Subject:
    return Subject(kind(shape, 2, layers=layers, **{**SMALL, **options}).double())


@pytest.mark.parametrize("shape", [(1, 4, 6), (1, 6, 4), (2, 3, 5), (1, 5, 1)], ids=str)
def test_one_diagonal_layer_sees_all_that_came_before(shape: tuple[int, ...]) -> None:
    """Every earlier pixel has a gradient, no later one has, whichever side is the longer."""
    given = subject(DiagonalBiLSTM, shape, layers=1)
    network = given.model.network
    assert torch.equal(checks_density.promised(network), checks_density.past(shape))
    checks_density.gradients_are_causal(given)


def test_as_published_the_end_of_the_row_above_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many layers there are: what the column beyond is for."""
    monkeypatch.setattr(DiagonalBiLSTM, "beyond", 0)
    for layers in (1, 3):
        given = subject(DiagonalBiLSTM, (1, 3, 5), layers=layers)
        checks_density.gradients_are_causal(given)
        field = checks_density.field(given.model.network).view(3, 5, 3, 5)
        assert not field[0, 4, 1, 0]
        assert field[0, 3, 1, 0]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("shape", [(1, 5, 9), (2, 4, 6)], ids=str)
def test_a_row_layer_sees_its_triangle(shape: tuple[int, ...], layers: int) -> None:
    """Of what it is given, d rows above, from d columns and a tap to the left to d columns to the right."""
    given = subject(RowLSTM, shape, layers=layers)
    checks_density.gradients_are_causal(given)
    rows, columns = shape[1:]
    field = checks_density.field(given.model.network).view(rows, columns, rows, columns)
    for i, j in itertools.product(range(rows), range(columns)):
        for d in range(1, i + 1):
            seen = field[i - d, :, i, j].nonzero().flatten().tolist()
            low, high = j - layers * 1 - d - 1, j + d  # the convolution of three columns reaches one up and aside
            assert seen == list(range(max(0, low), min(columns - 1, high) + 1)), (i, j, d)
    assert not field[0, columns - 1, 1, 0], "the upper wedge is not seen"


class ReversesAfterTheSkew(DiagonalLayer):
    """The skewed map is reversed, not the image: the row above is read two columns on, and what is between is not.

    What rmsnorm/pixel-rnn-jax does, at a good likelihood.
    """

    def __init__(self, space: tuple[int, int], *sizes: int) -> None:
        super().__init__(space, *sizes)
        rows, width = space
        steps, spans, cells = rows + width - 1, [], []
        for k in range(steps):
            inside = [row for row in range(rows) if 0 <= steps - 1 - k - row < width]
            spans.append((inside[0], inside[-1] + 1))
            cells += [row * width + steps - 1 - k - row for row in inside]
        self.reversed, self.places = Sweep.of(spans, taps=2, carry=1), torch.tensor(cells)[None]

    def joined(self, states: Tensor) -> Tensor:
        bias, weights = self.bias([]).repeat(states.shape[2], 1, 1).transpose(0, 1), self.weights()
        cells = (self.states[1:], self.hidden[1:], self.memory[1:])
        order = self.places, self.places.argsort(1)
        right = lstm_scan(self.x, weights[1:, :, : self.x.shape[2]], bias[1:], *cells, self.reversed, *order)
        return super().joined(torch.cat([states[:1], right]))

    def taken(self, x: Tensor) -> Tensor:
        self.x = x
        return x


class ShiftsTheOtherWay(DiagonalLayer):
    """The row of zeros is at the bottom: a place sees what the map from the right makes of the row below it.

    Issue 16 of carpedm20/pixel-rnn-tensorflow.
    """

    def joined(self, states: Tensor) -> Tensor:
        return states[0] + F.pad(states[1], [0, 0, 0, 0, -self.space[1], self.space[1]])


class DoesNotShift(DiagonalLayer):
    """The map from the right is seen where it is, so that a place sees what is to its right."""

    def joined(self, states: Tensor) -> Tensor:
        return states.sum(0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (ReversesAfterTheSkew, "no gradient in pixels of the past"),
        (ShiftsTheOtherWay, "its own pixel or a later one"),
        (DoesNotShift, "its own pixel or a later one"),
    ],
    ids=lambda kind: getattr(kind, "__name__", ""),
)
def test_the_faults_of_public_code_are_refused(kind: type[DiagonalLayer], message: str) -> None:
    given = subject(DiagonalBiLSTM, (1, 6, 8), layers=1)
    given.model.network.layers[0] = kind((6, 9), 4, 6, 8).double()
    with pytest.raises(AssertionError, match=message):
        checks_density.gradients_are_causal(given)


@pytest.mark.parametrize(("kind", "cells"), [(DiagonalBiLSTM, 2 * 4 * 7 + 6), (RowLSTM, 5 * 6)])
def test_a_sample_updates_as_many_cells_as_there_are(
    kind: type[Any], cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two a place and layer, in a column beyond too; what the last row has beyond and from the right is not made."""
    layers, width, batch, updates = 3, 6, 4, 0
    cell = recurrent.lstm_cell

    def counted(z: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal updates
        updates += memory.numel() // 4
        return cell(z, memory)

    monkeypatch.setattr(recurrent, "lstm_cell", counted)
    model = kind((1, 5, width), 2, layers=layers, **SMALL)
    model(torch.zeros(1, 2, 1, 5, width, dtype=torch.long)).sample((2,), torch.Generator().manual_seed(0))
    assert updates == batch * layers * cells


@pytest.mark.parametrize("kind", [DiagonalBiLSTM, RowLSTM])
def test_a_volume_is_its_rows_one_after_another(kind: type[Any]) -> None:
    """With weights of an image: the same but for positions, which are left out here."""
    flat, deep = (kind(shape, 2, layers=2, **SMALL) for shape in ((1, 6, 4), (1, 2, 3, 4)))
    randomise(flat, 0)
    deep.network.layers.load_state_dict(flat.network.layers.state_dict())
    x, biases = torch.randn(6 * flat.network.space[1], 2, 8), flat.network.conditioning(2, torch.randn(2, 8)).biases
    for i in range(2):
        for one, two in zip(flat.network.layers[i](x, biases[i]), deep.network.layers[i](x, biases[i]), strict=True):
            assert torch.equal(one, two)


def test_what_it_is_not_made_of_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel_size=4; a Row LSTM needs an odd kernel of 3 or more"):
        RowLSTM((1, 4, 4), 2, kernel_size=4)
    with pytest.raises(TypeError, match="DiagonalBiLSTM: got an unexpected keyword argument 'kernel_size'"):
        DiagonalBiLSTM((1, 4, 4), 2, kernel_size=3)
    with pytest.raises(TypeError, match="dilations"):
        RowLSTM((1, 4, 4), 2, dilations=(1, 2))
    with pytest.raises(ValueError, match="layers=0"):
        DiagonalBiLSTM((1, 4, 4), 2, layers=0)
    with pytest.raises(ValueError, match="first_kernel=4"):
        DiagonalBiLSTM((1, 4, 4), 2, first_kernel=4)
    with pytest.raises(ValueError, match="attention='dots'"):
        RowLSTM((1, 4, 4), 2, attention="dots")
