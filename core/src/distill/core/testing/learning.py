"""Checks of losses, trajectories and methods, on the toy."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.core import paths, tree
from distill.core.contracts import Context, Event, Loss, Method, Trajectory
from distill.core.engine import Engine
from distill.core.plan import Optimiser, Plan, Update, one_phase
from distill.core.rng import Rng
from distill.core.roles import Role, Roles
from distill.core.sampling import Sampler
from distill.core.setup import assemble, sources
from distill.core.testing.fit import ensure, equal, untouched, weights_of
from distill.core.testing.kit import Case, check
from distill.core.testing.toy import Cast, OneEvent, Player, on_some_path, toy_batch, toy_event


def _toy_loss(case: Case, path: paths.GaussianPath) -> tuple[Loss, Cast, str]:
    loss: Loss = case.make()
    role = loss.moves[0] if loss.moves else "student"
    return loss, Cast(path, *dict.fromkeys((*loss.needs, *loss.moves, role))), role


@check("toy/terms", "loss")
def check_terms(case: Case) -> None:
    """Terms are named, finite, and one a sample or a scalar: the engine logs, weights and adds them by that
    rule.

    Mend: return a mapping of names to tensors [B] or []; name in `needs` every role that is asked.
    """

    def run(path: paths.GaussianPath) -> None:
        loss, cast, role = _toy_loss(case, path)
        ctx = Context(cast, Rng(0))
        terms = loss.terms(toy_event(ctx, role), ctx)
        ensure(terms, "it returns no term")
        for name, value in terms.items():
            ensure(
                value.shape in ((8,), ()),
                f"the term {name!r} has shape {tuple(value.shape)}: neither [B] nor []",
            )
            ensure(bool(torch.isfinite(value).all()), f"the term {name!r} is not finite")

    on_some_path(run)


@check("toy/determinism", "loss")
def check_loss_determinism(case: Case) -> None:
    """A seed decides every draw; a run is resumed, compared and debugged by it.

    Mend: draw noise and times from named streams of `ctx.rng`, and from nowhere else.
    """

    def run(path: paths.GaussianPath) -> None:
        loss, cast, role = _toy_loss(case, path)
        event = toy_event(Context(cast, Rng(0)), role)
        first, second = (untouched(lambda: loss.terms(event, Context(cast, Rng(5)))) for _ in range(2))
        same = all(torch.equal(first[name], second[name]) for name in first)
        ensure(same, "the same seed gives other terms")

    on_some_path(run)


@check("toy/moves", "loss")
def check_loss_moves(case: Case) -> None:
    """An iteration changes the roles that the loss names, all of them, and no other.

    Mend: correct `moves`; detach what another role said; do not write to a role's weights in a loss.
    """

    def run(path: paths.GaussianPath) -> None:
        loss, cast, role = _toy_loss(case, path)
        before = weights_of(cast)
        plan = Plan(
            phases=one_phase(
                [Update(trajectory=OneEvent(role=role), loss=loss)],
                1,
                {name: Optimiser() for name in loss.moves},
            )
        )
        Engine(cast, plan, lambda start: iter(toy_batch, None)).run()
        changed = {name for name, value in weights_of(cast).items() if not torch.equal(value, before[name])}
        ensure(changed == set(loss.moves), f"it names {sorted(loss.moves)} and changes {sorted(changed)}")

    on_some_path(run)


@check("toy/exact-teacher", "loss")
def check_exact_teacher(case: Case) -> None:
    """Where teacher and critic are the exact denoiser of one law, their scores agree and nothing may move.

    Applies to losses that need both. Mend: subtract predictions at one x_t, one t and one noise.
    """

    def run(path: paths.GaussianPath) -> None:
        loss, cast, role = _toy_loss(case, path)
        if not {"teacher", "critic"} <= set(loss.needs) or "critic" in loss.moves:
            raise unittest.SkipTest("it compares no critic with a teacher")
        cast.add(Role("critic", cast["teacher"].module))
        ctx = Context(cast, Rng(0))
        event = toy_event(ctx, role)
        total: Any = sum(value.sum() for value in loss.terms(event, ctx).values())
        (gradient,) = torch.autograd.grad(total, event.x, allow_unused=True)
        size = 0.0 if gradient is None else float(gradient.abs().max())
        ensure(size < 1e-5, f"critic and teacher agree, and the gradient is {size:.2g}")

    on_some_path(run)


# ---------------------------------------------------------------- trajectories


def _events(trajectory: Trajectory, cast: Cast, attached: bool) -> list[Event]:
    events = trajectory.events(toy_batch(), Context(cast, Rng(0)), attached=attached)
    return [event for event, _ in zip(events, range(4), strict=False)]


@check("toy/events", "trajectory")
def check_events(case: Case) -> None:
    """It yields events with a state of finite values, the same for the same seed.

    Mend: draw from named streams of `ctx.rng`; yield at least one Event a batch.
    """

    def run(path: paths.GaussianPath) -> None:
        trajectory, cast = case.make(), Cast(path)
        _events(trajectory, cast, True)  # the cast comes to be
        first, second = (untouched(lambda: _events(trajectory, cast, True)) for _ in range(2))
        ensure(first, "it yields no event")
        for event, again in zip(first, second, strict=True):
            ensure(all(torch.isfinite(leaf).all() for leaf in tree.leaves(event.x)), "its state is not finite")
            ensure(equal(event.x, again.x), "the same seed gives another event")

    on_some_path(run)


@check("toy/moves", "trajectory")
def check_trajectory_moves(case: Case) -> None:
    """Gradient runs from an attached event to the roles that it names, and to no other; from a detached
    one, nowhere.

    Mend: correct `moves`; ask others with `role.ask`; honour `attached`.
    """

    def run(path: paths.GaussianPath) -> None:
        trajectory, cast = case.make(), Cast(path)
        _events(trajectory, cast, True)
        reached = {name for event in _events(trajectory, cast, True) for name in _reached(event, cast)}
        ensure(
            reached == set(trajectory.moves),
            f"it names {sorted(trajectory.moves)}, gradient reaches {sorted(reached)}",
        )
        loose = any(leaf.requires_grad for event in _events(trajectory, cast, False) for leaf in _said(event))
        ensure(not loose, "with attached=False its events still carry gradient")

    on_some_path(run)


def _said(event: Event) -> list[Tensor]:
    said = [] if event.prediction is None else tree.leaves(event.prediction.value)
    return [*tree.leaves(event.x), *said]


def _reached(event: Event, cast: Cast) -> set[str]:
    parts = [leaf for leaf in _said(event) if leaf.requires_grad]
    if not parts:
        return set()
    total: Any = sum(leaf.square().sum() for leaf in parts)
    found = set()
    for name, role in cast.items():
        parameters = [p for p in role.parameters() if p.requires_grad]
        grads = torch.autograd.grad(total, parameters, allow_unused=True, retain_graph=True) if parameters else ()
        found |= {name} if any(g is not None for g in grads) else set()
    return found


# ---------------------------------------------------------------- methods


def _toy_method(case: Case, path: paths.GaussianPath) -> tuple[Method, Roles, Plan]:
    method: Method = case.make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = method.roles()
        recipes = {"teacher", "student", *(name for spec in made.values() for name in sources(spec))}
        given = {name: Role(name, Player(path)) for name in sorted(recipes - set(made))}
        roles = assemble(method, given)
    return method, roles, method.plan(Sampler(steps=4))


def _toy_engine(case: Case, path: paths.GaussianPath, folder: Path) -> Engine:
    _, roles, plan = _toy_method(case, path)
    return Engine(roles, plan, lambda start: iter(toy_batch, None), folder=folder)


@check("toy/roles", "method")
def check_roles(case: Case) -> None:
    """Every role that the plan speaks of is among the method's, or a run ends before it begins.

    Mend: name in `roles()` all that losses need and actions change; give each moved role an optimiser.
    """

    def run(path: paths.GaussianPath) -> None:
        _, roles, plan = _toy_method(case, path)
        missing = (plan.needs() | plan.changed() | {plan.result}) - set(roles)
        ensure(not missing, f"its plan speaks of {', '.join(sorted(missing))}, which `roles()` does not make")
        plan.check(roles)

    on_some_path(run)


@check("toy/iterations", "method")
def check_iterations(case: Case) -> None:
    """Two iterations run, change nobody but the roles that the plan changes, and leave a student that can
    be sampled.

    Mend: the message says which part of the plan failed; try it with `distill train --debug`.
    """

    def run(path: paths.GaussianPath) -> None:
        with tempfile.TemporaryDirectory() as folder:
            engine = _toy_engine(case, path, Path(folder))
            before = weights_of(engine.roles)
            engine.run(2)
        changed = {name for name, value in weights_of(engine.roles).items() if not torch.equal(value, before[name])}
        shared = {n for n, role in engine.roles.items() if role.own is None and lent(engine.roles, n)}
        wrong = changed - engine.plan.changed() - shared
        ensure(not wrong, f"the weights of {', '.join(sorted(wrong))} changed, which the plan does not name")
        x = engine.sampler.sample(engine.roles[engine.plan.result], Rng(0).normal(4, 2), rng=Rng(0), roles=engine.roles)
        ensure(bool(torch.isfinite(x).all()), "samples after two iterations are not finite")

    on_some_path(run)


def lent(roles: Roles, name: str) -> bool:
    """Whether another role holds the same module: an adapter's parameters live there too."""
    return any(role.module is roles[name].module for other, role in roles.items() if other != name)


@check("toy/resume", "method")
def check_resume(case: Case) -> None:
    """A run that was stopped and resumed ends with the very weights of one that was not.

    Mend: keep what a component remembers in `ctx.state` or in a role's buffers, never in attributes of its
    own.
    """

    def run(path: paths.GaussianPath) -> None:
        with tempfile.TemporaryDirectory() as folder:
            whole = _toy_engine(case, path, Path(folder) / "whole").run(3)
            half = _toy_engine(case, path, Path(folder) / "half").run(1)
            again = _toy_engine(case, path, Path(folder) / "half").resume(half.save())
            again.run(max(0, whole.step - again.step))
        same = all(torch.equal(a, b) for a, b in zip(_saved(whole), _saved(again), strict=True))
        ensure(
            same and whole.sampler == again.sampler,
            "a resumed run ends elsewhere than one that was never stopped",
        )

    on_some_path(run)


def _saved(engine: Engine) -> list[Tensor]:
    return [value for name in engine.saved_roles() for value in engine.roles[name].tensors().values()]
