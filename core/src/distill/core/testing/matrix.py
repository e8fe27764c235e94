"""The matrix: every loss with every denoiser, in one iteration of training at toy size.

A cell works, or the pair is refused with a reason: a sentence of the contract (what a component is made for, what it
declares in `conformance`) or the message of the DistillError that a user would get. Anything else that is raised is a
fault of one of the two.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from distill.core import tree
from distill.core.contracts import Batch, Context, Event, Loss, Subject, Trajectory
from distill.core.denoiser import Denoiser
from distill.core.engine import Engine
from distill.core.errors import DistillError, NonFiniteError
from distill.core.plan import Optimiser, Plan, Update, one_phase
from distill.core.registry import Registry, default_registry
from distill.core.rng import Rng
from distill.core.roles import Role, Roles
from distill.core.testing.fit import Unfit, ensure
from distill.core.testing.kit import Case
from distill.core.testing.toy import Acting, AnyState, Player

SIZE = 2
"""Samples of a batch."""
WORKS, FAULT = "works", "FAULT: "
SUBJECT = "it is a subject, which predicts nothing: a lens shows it to its teacher, and losses are asked of that"
EXACT, POINT = "it has nothing to train, and is no point of the plane, as the networks are that it could teach", (2,)


class Stage:
    """A denoiser with what a loss is tried on: noise for data, conditions, and copies of it for every role."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.name, self.modality = case.entry.name, case.entry.component.modality

    @cached_property
    def denoiser(self) -> Denoiser:
        """As its example options say; built once."""
        denoiser: Denoiser = self.case.make().build()
        return denoiser

    @cached_property
    def left_out(self) -> str:
        """Why no loss is tried with it; empty where losses are."""
        declared = self.case.conformance.get("shape", "")
        try:
            if isinstance(self.denoiser, Subject):
                return SUBJECT
            if self._exact and self.denoiser.shape != POINT:
                return EXACT
            return declared if self.denoiser.shape is None else ""
        except DistillError:
            return declared or "it cannot be built here"

    @cached_property
    def batch(self) -> Batch:
        """Data of normal values, under conditions that are not the null ones."""
        _, _, null = self.denoiser.example(SIZE)
        cond = {name: tree.tree_map(partial(_other, name), value) for name, value in null.items()}
        return Batch(SIZE, Batch(SIZE, shape=self.denoiser.shape).noise(Rng(7)), cond, self.denoiser.shape)

    def roles(self, names: Iterable[str]) -> Roles:
        """Copies that differ a little; where the denoiser has nothing to train, it teaches players of the toy."""
        made = Roles()
        for place, name in enumerate(dict.fromkeys(names)):
            exact = name == "teacher" and self._exact
            made.add(Role(name, self.denoiser if exact else self._player(place)))
        return made

    @property
    def _exact(self) -> bool:
        """Whether the denoiser has nothing to train."""
        return not any(True for _ in self.denoiser.parameters())

    def _player(self, seed: int) -> Denoiser:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self._exact:
                return Player(self.denoiser.path)
            module = Acting.taught(copy.deepcopy(self.denoiser))
            for parameter in module.parameters():  # or networks that begin with zeros would pass no gradient on
                parameter.data.add_(0.02 * torch.randn_like(parameter))
            return module

    def event(self, ctx: Context, role: str) -> Event:
        """A prediction of one role on noised data, with any target or scalar that a loss may look for."""
        path, batch = ctx.roles[role].denoiser.path, self.batch
        x: Any = batch.x
        t = path.t_min + (path.t_max - path.t_min) * (0.3 + 0.4 * Rng(1).uniform(batch.size))
        noise = batch.noise(Rng(2))
        x_t = path.noised(x, noise, t)
        said = ctx.roles[role].predict(x_t, t, batch.cond)
        scalars = AnyState(lambda name: path.t_min + 0.5 * (t - path.t_min))
        targets = AnyState(lambda name: batch.noise(Rng(3), name))
        meta = AnyState(lambda name: said.x0, holds=False)
        return Event(said.x0, batch.cond, t, x_t, noise, said, targets, scalars, meta=meta)


def _other(name: str, null: torch.Tensor) -> torch.Tensor:
    """A value that differs from a condition's null: the first class, or another text."""
    if null.is_floating_point():
        return null + 0.5 * Rng(8).normal(*null.shape, stream=name).to(null.dtype)
    return torch.zeros_like(null)


class _Moment(Trajectory):
    """The stage's event."""

    stage: Stage
    role: str

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        with torch.set_grad_enabled(attached):
            yield self.stage.event(ctx, self.role)


def outcome(loss: Case, stage: Stage) -> str:
    """What becomes of a loss with a stage's denoiser: `works`, or the reason why not.

    Raises:
        Unfit: it neither works nor is refused.
    """
    made_for = loss.entry.component.modality
    if made_for and stage.modality not in _seen_by(made_for, loss.registry):
        holds = f"for {stage.modality}" if stage.modality else "for none, and holds points here"
        return f"the loss is made for {made_for}, the denoiser {holds}"
    pair = f"the loss {loss.entry.name} with the denoiser {stage.name}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a network's; what counts is what becomes of it
            _train(loss.make(), stage)
    except NonFiniteError as error:
        raise Unfit(f"{pair}: {error}") from error
    except DistillError as error:
        return sentence(str(error))
    except Unfit as error:
        raise Unfit(f"{pair}: {error}") from error
    except Exception as error:
        said = f"{pair} breaks: {type(error).__name__}: {sentence(str(error))}"
        raise Unfit(f"{said}. Mend: make it work, or raise a DistillError that says what is missing") from error
    return WORKS


@cache
def _seen_by(modality: str, registry: Registry) -> frozenset[str]:
    """Modalities of the denoisers that losses made for one meet: its own, or those that its lenses show subjects in."""
    own = [Stage(Case(e, registry)) for e in registry.components("denoiser") if e.component.modality == modality]
    if not all(stage.left_out == SUBJECT for stage in own):
        return frozenset({modality})
    lenses: list[Any] = [e.load() for e in registry.components("lens") if e.component.modality == modality]
    shown = {lens.gives for lens in lenses if lens.takes == modality and isinstance(lens.gives, str)}
    return frozenset({modality}) | shown


def _train(loss: Loss, stage: Stage) -> None:
    """One iteration; whoever the loss names must have been moved."""
    role = loss.moves[0] if loss.moves else "student"
    roles = stage.roles((*loss.needs, *loss.moves, role))
    update = Update(trajectory=_Moment(stage=stage, role=role), loss=loss)
    plan = Plan(phases=one_phase([update], 1, {name: Optimiser() for name in loss.moves}))
    norms: dict[str, float] = {}
    Engine(roles, plan, lambda start: repeat(stage.batch), on_step=lambda _, found: norms.update(found)).run()
    still = [name for name in loss.moves if not norms.get(f"{name}_grad_norm")]
    ensure(not still, f"it names {', '.join(still)} and gives no gradient there")


def sentence(text: str) -> str:
    """The first sentence of a message, on one line.

    >>> sentence("there is no path. Try another.")
    'there is no path'
    """
    return re.split(r"(?<=[^.])\.(?:\s|$)", " ".join(text.split()), maxsplit=1)[0]


# ---------------------------------------------------------------- the page

MADE = "<!-- Made by `distill matrix`. -->"
ABOUT = """Each loss and each denoiser in one iteration of training at toy size: copies of the denoiser play teacher,
student, critic and judge, the data are noise, and whoever the loss names has to get a gradient. A tick works. A number
is the reason, below, for which the pair is refused; a loss that is made for a modality is not tried with denoisers of
others. Every twelfth cell is tried by the tests, all of them by `distill matrix`."""

Cells = dict[tuple[str, str], str]
"""What becomes of a loss and a denoiser, by their names."""


@dataclass(frozen=True)
class Matrix:
    """Losses as rows, denoisers as columns, and those denoisers that no loss is tried with."""

    registry: Registry

    @cached_property
    def losses(self) -> list[Case]:
        """The rows."""
        return [Case(entry, self.registry) for entry in self.registry.components("loss")]

    @cached_property
    def stages(self) -> list[Stage]:
        """The columns, and those left out."""
        return [Stage(Case(entry, self.registry)) for entry in self.registry.components("denoiser")]

    @cached_property
    def left_out(self) -> dict[str, str]:
        """Denoisers without a column, and why."""
        return {stage.name: stage.left_out for stage in self.stages if stage.left_out}

    def cells(self, known: Cells) -> Iterator[tuple[tuple[str, str], str]]:
        """All of them, as they are found; what neither works nor is refused begins with `FAULT`."""
        for stage in self.stages:
            for loss in self.losses if not stage.left_out else ():
                pair = (loss.entry.name, stage.name)
                yield pair, known.get(pair) or _faulty(loss, stage)


def _faulty(loss: Case, stage: Stage) -> str:
    try:
        return outcome(loss, stage)
    except Unfit as error:
        return f"{FAULT}{' '.join(str(error).split())}"


def diagonals(cells: Cells, of: int) -> list[tuple[str, str]]:
    """One of so many parts of the cells: each row and each column has some."""
    rows, columns = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    return [pair for pair in cells if (rows.index(pair[0]) + columns.index(pair[1])) % of == 0]


def page(cells: Cells, left_out: Mapping[str, str]) -> str:
    """The matrix in Markdown."""
    rows, columns = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    reasons = list(dict.fromkeys(cells[row, column] for row in rows for column in columns))
    signs = {reason: str(n) for n, reason in enumerate((r for r in reasons if r != WORKS), 1)} | {WORKS: "✓"}
    lines = [["loss", *columns], ["---", *[":-:"] * len(columns)]]
    lines += [[row, *(signs[cells[row, column]] for column in columns)] for row in rows]
    good = sum(reason == WORKS for reason in cells.values())
    return "\n\n".join([
        "# Which loss works with which denoiser", MADE, ABOUT,
        f"{good} of {len(cells)} work.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
        "## Reasons", "\n".join(f"{sign}. {reason}" for reason, sign in signs.items() if reason != WORKS),
        "## Denoisers without a column", "\n".join(f"- {name}: {reason}" for name, reason in left_out.items()),
    ]) + "\n"  # fmt: skip


def read(text: str) -> tuple[Cells, dict[str, str]]:
    """The cells of a page, and the denoisers that it leaves out."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE)) | {"✓": WORKS}
    (_, *columns), _, *rows = lines or [[], []]
    cells = {(row[0], column): reasons[sign] for row in rows for column, sign in zip(columns, row[1:], strict=True)}
    return cells, dict(re.findall(r"^- ([^:]+): (.*)$", text, re.MULTILINE))


def write(
    out: Annotated[Path, typer.Option("--out", "-o", help="The page.")] = Path("matrix.md"),
    missing: Annotated[bool, typer.Option("--missing", help="Try only pairs that the page does not have yet.")] = False,
) -> None:
    """Train every loss with every denoiser for one step, and write which pairs work and why the others do not."""
    known, _ = read(out.read_text(encoding="utf-8")) if missing and out.exists() else ({}, {})
    matrix = Matrix(default_registry())
    cells = dict(matrix.cells({pair: said for pair, said in known.items() if not said.startswith(FAULT)}))
    out.write_text(page(cells, matrix.left_out), encoding="utf-8")
    typer.echo(f"matrix: {out}")
    if faults := [said.removeprefix(FAULT) for said in cells.values() if said.startswith(FAULT)]:
        raise DistillError(f"{len(faults)} of {len(cells)} pairs neither work nor are refused: {'; '.join(faults)}")
