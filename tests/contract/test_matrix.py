"""The matrix of losses and denoisers is what its page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.core import DistillError, Loss
from distill.core.registry import default_registry
from distill.core.testing import Unfit
from distill.core.testing.matrix import WORKS, Matrix, diagonals, outcome, page, read, sentence

PAGE = Path(__file__).parents[2] / "docs/matrix.md"
CELLS, LEFT_OUT = read(PAGE.read_text(encoding="utf-8"))
MATRIX = Matrix(default_registry())
ADVICE = "run `distill matrix -o docs/matrix.md`, for new losses and denoisers with --missing, and look at what changed"


def named(loss, denoiser):
    """The two of a cell."""
    (case,) = [case for case in MATRIX.losses if case.entry.name == loss]
    (stage,) = [stage for stage in MATRIX.stages if stage.name == denoiser]
    return case, stage


def test_the_page_has_every_loss_and_every_denoiser():
    losses, denoisers = {row for row, _ in CELLS}, {column for _, column in CELLS}
    assert losses == {case.entry.name for case in MATRIX.losses}, ADVICE
    assert denoisers | set(LEFT_OUT) == {stage.name for stage in MATRIX.stages}, ADVICE
    assert LEFT_OUT == MATRIX.left_out, ADVICE


@pytest.mark.parametrize(("loss", "denoiser"), diagonals(CELLS, 12))
def test_a_cell_is_what_the_page_says(loss, denoiser):
    assert outcome(*named(loss, denoiser)) == CELLS[loss, denoiser], ADVICE


def test_the_part_that_is_tried_has_every_row_and_every_column():
    tried = diagonals(CELLS, 12)
    assert len(tried) < len(CELLS) / 11 and all({p[side] for p in tried} == {p[side] for p in CELLS} for side in (0, 1))


def test_a_page_is_read_as_it_was_written():
    cells = {("a", "x"): WORKS, ("a", "y"): "it needs taps: name some", ("b", "x"): "no", ("b", "y"): WORKS}
    assert read(page(cells, {"z": "it scores, and denoises none"})) == (cells, {"z": "it scores, and denoises none"})


@pytest.fixture
def on_mlp():
    """Tries a loss that raises an error, or returns terms, with the perceptron."""
    case, stage = named("match", "mlp")

    def run(terms):
        kind = type("Told", (Loss,), {"terms": lambda self, event, ctx: terms(event), "__doc__": "Told."})
        told = type(case)(case.entry, case.registry)
        vars(told)["target"] = kind
        return outcome(told, stage)

    return run


def test_a_refusal_is_its_first_sentence(on_mlp):
    def refuse(event):
        raise DistillError("there is no sun. Wait for the morning.")

    assert on_mlp(refuse) == "there is no sun"
    assert sentence("version 1.5 is\nold. Update.") == "version 1.5 is old"


def test_what_is_neither_refused_nor_works_is_a_fault(on_mlp):
    with pytest.raises(Unfit, match="breaks: ZeroDivisionError: division by zero. Mend"):
        on_mlp(lambda event: 1 / 0)
    with pytest.raises(Unfit, match="names student and gives no gradient"):
        on_mlp(lambda event: {"none": 0 * event.x.sum()})
    with pytest.raises(Unfit, match="became nan"):
        on_mlp(lambda event: {"bad": event.x.sum() * float("nan")})
