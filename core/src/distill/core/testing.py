"""The conformance kit: what every component of every plugin must do, ours and a stranger's alike.

From the command line, `distill check PLUGIN`. From pytest, one test a check::

    @pytest.mark.parametrize(("name", "check"), component_checks("smell"))
    def test_conforms(name, check):
        check()

Losses, trajectories, transforms and methods are run on a toy: the exact denoiser of two Gaussians teaches a tiny
perceptron that can play any part. A component that needs more than its default options says so in a class attribute
`example`; one to which a check does not apply names it with the reason, `conformance = {"toy": "needs a scene"}`,
where the part before a slash stands for all checks of that group. Each check says why it exists and how to mend it.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from distill.core import contracts, paths, tree
from distill.core.contracts import Batch, Context, Event, Loss, Method, Subject, Trajectory
from distill.core.data import collate
from distill.core.denoiser import Denoiser
from distill.core.engine import Engine
from distill.core.mixture import Mixture
from distill.core.options import Options
from distill.core.plan import Optimiser, Plan, Update, one_phase
from distill.core.prediction import Prediction
from distill.core.registry import Entry, Registry, default_registry
from distill.core.rng import Rng
from distill.core.roles import Role, Roles
from distill.core.sampling import Sampler
from distill.core.setup import assemble

BASES: dict[str, type] = {
    "denoiser": contracts.Builder,
    "trajectory": Trajectory,
    "loss": Loss,
    "modality": contracts.Modality,
    "lens": contracts.Lens,
    "transform": contracts.Transform,
    "dataset": contracts.DataSource,
    "metric": contracts.Metric,
    "method": Method,
}
"""What the target of each kind of component derives from."""

HEAVY = ("torch", "numpy", "scipy", "sklearn", "diffusers", "transformers", "peft", "torchaudio", "trimesh")
"""What listing plugins must not import."""


class Result(NamedTuple):
    """What was checked, and what is wrong with it; empty when all is well."""

    what: str
    failure: str


class Unfit(AssertionError):
    """A component does not do what its contract says."""


def ensure(condition: object, message: str) -> None:
    """Raise Unfit with a message unless the condition holds."""
    if not condition:
        raise Unfit(message)


# ---------------------------------------------------------------- running checks


@dataclass(frozen=True)
class Case:
    """One component under test."""

    entry: Entry
    registry: Registry

    @cached_property
    def target(self) -> Any:
        """The class that the component names."""
        return self.entry.load()

    def make(self) -> Any:
        """The component with its `example` options, or its defaults."""
        missing = [name for name, info in self.target.model_fields.items() if info.is_required()]
        lacking = set(missing) - set(self.target.example)
        ensure(not lacking, f"options {', '.join(sorted(lacking))} have no default: give them in `example`")
        return self.target(**self.target.example)

    def kin(self, kind: str) -> list[Any]:
        """Components of another kind for the same modality, the plugin's own first, made with their examples."""
        mine = self.entry.component.modality or self.entry.name
        entries = [e for e in self.registry.components(kind) if mine in (e.component.modality, e.name)]
        entries.sort(key=lambda e: e.plugin.name != self.entry.plugin.name)
        return [Case(e, self.registry).make() for e in entries]

    def states(self, size: int) -> Any:
        """Some states of the component's modality: of a dataset, or in the shape of a denoiser; else points [size, 2]."""
        for source in self.kin("dataset"):
            samples = source.open()
            return collate([samples[row % len(samples)] for row in range(size)])["x"]
        for builder in self.kin("denoiser"):
            return Batch(size, shape=builder.build().shape).noise(Rng(0))
        return WORLD.data(size, Rng(0))


Run = Callable[[Case], None]
CHECKS: list[tuple[str, tuple[str, ...], Run]] = []
"""Every check: its name, the kinds of component that it is for, and what it runs."""


def check(name: str, *kinds: str) -> Callable[[Run], Run]:
    """Add a function to the kit, for some kinds of component or for all."""

    def add(run: Run) -> Run:
        CHECKS.append((name, kinds or tuple(BASES), run))
        return run

    return add


def component_checks(plugin: str, registry: Registry | None = None) -> list[tuple[str, Callable[[], None]]]:
    """The checks of a plugin and its components as (id, function): a failure raises, what does not apply is skipped."""
    registry = registry or default_registry()
    record = registry.require(plugin)
    checks: list[tuple[str, Callable[[], None]]] = [(f"{plugin}: lazy", lambda: check_lazy(record.entry_point))]
    for entry in registry.components():
        if entry.plugin.name == plugin:
            case = Case(entry, registry)
            checks += [
                (f"{entry.kind} {entry.name}: {name}", lambda case=case, name=name, run=run: _apply(case, name, run))  # type: ignore[misc]
                for name, kinds, run in CHECKS
                if entry.kind in kinds
            ]
    return checks


def _apply(case: Case, name: str, run: Run) -> None:
    declared: Mapping[str, str] = getattr(case.target, "conformance", {})  # what is not Options fails `resolves`
    reason = declared.get(name, declared.get(name.partition("/")[0]))
    if reason is not None:
        ensure(reason.strip(), f"`conformance` leaves out {name!r} without a reason: say why it does not apply")
        raise unittest.SkipTest(reason)
    run(case)


def check_plugin(plugin: str, *, registry: Registry | None = None) -> Iterator[Result]:
    """Run every check of a plugin; the results come as they are found."""
    for name, run in component_checks(plugin, registry):
        try:
            run()
        except unittest.SkipTest as reason:
            yield Result(f"{name} (does not apply: {reason})", "")
        except Exception as error:  # whatever a component raises is its failure
            said = " ".join(str(error).split())
            yield Result(name, said if isinstance(error, Unfit) else f"{type(error).__name__}: {said}")
        else:
            yield Result(name, "")


# ---------------------------------------------------------------- plugins, and components of any kind


def check_lazy(entry_point: str) -> None:
    """Importing a plugin's module imports nothing heavy, because every command lists every plugin.

    Mend: import torch and its like in the modules that targets name, and only `hookspecs` in the plugin's own.
    """
    module = entry_point.partition(":")[0]
    code = f"import sys, importlib; importlib.import_module({module!r}); print(*sys.modules)"
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    ensure(not done.returncode, f"{module} cannot be imported on its own: {done.stderr.strip().splitlines()[-1:]}")
    heavy = sorted(set(HEAVY) & set(done.stdout.split()))
    ensure(not heavy, f"importing {module} imports {', '.join(heavy)}: import them where they are used")


@check("resolves")
def check_resolves(case: Case) -> None:
    """The target is there and of the right base class, or using the component fails far from its cause.

    Mend: correct the target in the Component record, or derive the class from the base of its kind.
    """
    base = BASES[case.entry.kind]
    right = isinstance(case.target, type) and issubclass(case.target, base)
    ensure(right, f"{case.entry.component.target} is no {base.__name__} of distill.core.contracts")
    ensure(not inspect.isabstract(case.target), f"{case.target.__name__} leaves methods of {base.__name__} out")
    if case.entry.component.claim:
        ensure(callable(case.entry.load_claim()), "its claim cannot be called")


@check("described")
def check_described(case: Case) -> None:
    """`distill list` and `show` have only the summary, the docstring and the options' descriptions to go by.

    Mend: give the class a docstring, the record a summary of one line, and each option a string under its field.
    """
    summary = case.entry.component.summary
    ensure(summary.strip() and "\n" not in summary, "its summary is not one line")
    ensure((case.target.__doc__ or "").strip(), f"{case.target.__name__} has no docstring")
    bare = [name for name, info in case.target.model_fields.items() if not info.description]
    ensure(not bare, f"options without a description: {', '.join(bare)}. Write a string under each")


@check("options")
def check_options(case: Case) -> None:
    """Options come from YAML and go back to it: unknown keys are refused, and what was written is read again.

    Mend: keep `extra="forbid"`, give required options in `example`, and use types that JSON can hold.
    """
    json.dumps(case.target.model_json_schema())
    made = case.make()
    ensure(case.target.model_validate(made.model_dump(mode="json")) == made, "its options do not survive JSON")
    try:
        case.target.model_validate({**case.target.example, "no_such_option_": 1})
    except ValueError:
        return
    raise Unfit("an unknown option is taken in silence: a user's misspelling would change nothing")


# ---------------------------------------------------------------- denoisers


@dataclass(frozen=True)
class Trial:
    """A denoiser with something to ask it: states of standard normal values, or tokens, at spread times."""

    denoiser: Denoiser
    x: Any
    t: Tensor
    cond: dict[str, Any]

    @classmethod
    def of(cls, case: Case, size: int = 3) -> Trial:
        """The component's denoiser, built and set to evaluation."""
        denoiser = case.make().build().eval()
        _, _, cond = denoiser.example(size)
        path, rng = denoiser.path, Rng(0)
        if isinstance(path, paths.CategoricalPath):
            x = rng.integers(path.vocabulary, size, *denoiser.shape)
        else:
            x = Batch(size, shape=denoiser.shape).noise(rng)
        t = path.t_min + (path.t_max - path.t_min) * torch.linspace(0.3, 0.7, size)
        return cls(denoiser, x, t, cond)

    @torch.no_grad()
    def ask(self, rows: Tensor, **options: Any) -> Prediction:
        """The prediction for some of the samples."""
        cond = {name: tree.index(value, rows) for name, value in self.cond.items()}
        return self.denoiser.predict(tree.index(self.x, rows), self.t[rows], cond, **options)

    @property
    def all(self) -> Tensor:
        """Every row."""
        return torch.arange(len(self.t))


def close(a: Any, b: Any, message: str) -> None:
    """Compare two states leaf by leaf."""
    for p, q in zip(tree.leaves(a), tree.leaves(b), strict=True):
        ensure(p.shape == q.shape, f"{message}: shapes {tuple(p.shape)} and {tuple(q.shape)}")
        gap = float((p - q).abs().max()) if p.numel() else 0.0
        scale = float(q.abs().max()) if q.numel() else 0.0
        ensure(gap <= 1e-4 * (1 + scale), f"{message}: they differ by {gap:.2g}")


@check("shape", "denoiser")
def check_shape(case: Case) -> None:
    """A prediction has the structure, shape and dtype of the state; the arithmetic of paths depends on it.

    Mend: crop what the network pads, split off learnt variances, and cast back what it computes in half precision.
    """
    trial = Trial.of(case)
    said = trial.ask(trial.all)
    for x, value in zip(tree.leaves(trial.x), tree.leaves(said.value), strict=True):
        if said.kind != "logits":
            ensure(value.dtype == x.dtype, f"states of {x.dtype} are answered in {value.dtype}")
        shape = value.shape[: x.ndim] if said.kind == "logits" else value.shape
        ensure(shape == x.shape, f"states of shape {tuple(x.shape)} are answered in {tuple(value.shape)}")
        ensure(bool(torch.isfinite(value).all()), "the prediction holds infinities or NaN")


@check("times", "denoiser")
def check_times(case: Case) -> None:
    """Each sample has a time of its own, so a batch must say what its samples say one by one.

    Mend: broadcast t from the left ([B] to [B, 1, ...]) and never read only its first entry.
    """
    trial = Trial.of(case)
    alone = [trial.ask(row[None]).value for row in trial.all]
    close(trial.ask(trial.all).value, tree.concatenate(alone), "a batch and a loop over its samples")


@check("permutation", "denoiser")
def check_permutation(case: Case) -> None:
    """Samples of a batch do not see each other, whatever their order.

    Mend: look for reshapes that mix the batch with another axis, and for batch statistics.
    """
    trial = Trial.of(case)
    back = trial.all.flip(0)
    close(trial.ask(back).value, tree.index(trial.ask(trial.all).value, back), "a batch in another order")


@check("randomness", "denoiser")
def check_denoiser_randomness(case: Case) -> None:
    """A network that draws random numbers in evaluation, or from the global generator, spoils seeds everywhere.

    Mend: take noise as an input; turn dropout off in `eval()`.
    """
    trial = Trial.of(case)
    before = torch.get_rng_state()
    first, second = trial.ask(trial.all).value, trial.ask(trial.all).value
    ensure(torch.equal(before, torch.get_rng_state()), "it draws from the global random generator")
    ensure(_equal(first, second), "it answers the same question twice in two ways")


def _equal(a: Any, b: Any) -> bool:
    return all(torch.equal(p, q) for p, q in zip(tree.leaves(a), tree.leaves(b), strict=True))


@check("serialisation", "denoiser")
def check_serialisation(case: Case) -> None:
    """Weights travel as safetensors: what one process saved, another one must load and answer alike.

    Mend: keep everything that is learnt or drawn in parameters and buffers; share no storage between them.
    """
    trial = Trial.of(case)
    tensors = Role("student", trial.denoiser).tensors()
    content = save({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()})
    twin = Trial.of(case)
    Role("student", twin.denoiser).load(load(content))
    ensure(_equal(trial.ask(trial.all).value, twin.ask(twin.all).value), "loaded weights give other predictions")


@check("taps", "denoiser")
def check_taps(case: Case) -> None:
    """Discriminators look at the features that a denoiser names; each name must give a tensor with a sample axis.

    Mend: name submodules that exist and that every call runs through.
    """
    trial = Trial.of(case)
    features = trial.ask(trial.all, taps=trial.denoiser.taps).features
    for name in trial.denoiser.taps:
        ensure(name in features, f"the tap {name!r} gives nothing: the network does not call that part")
        ensure(isinstance(features[name], Tensor) and len(features[name]) == 3, f"the tap {name!r} gives no [B, ...]")


# ---------------------------------------------------------------- the toy

POINTS = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
WORLD = Mixture(POINTS, 0.2, paths.Flow(), LABELS)
"""Two Gaussians, one a class: data, and a teacher that is exact."""
TOY_PATHS: tuple[paths.GaussianPath, ...] = (
    paths.Flow(t_min=1e-3), paths.Karras(t_min=0.02, t_max=20.0), paths.Trigonometric(t_min=1e-3), paths.Cosine(t_min=1e-3),
)  # fmt: skip


class _Perceptron(nn.Module):
    """Two layers on a point [B, 2], its time and its class."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(2, 16)
        self.label = nn.Embedding(3, 16)
        self.inlet, self.hidden, self.outlet = nn.Linear(2, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        h = self.inlet(x) + self.time(torch.stack([t / 1000, torch.tanh(t)], 1))
        h = h + self.label(cond["label"]) if "label" in cond else h
        out: Tensor = self.outlet(torch.tanh(self.hidden(torch.tanh(h))))
        return out


class Player(Denoiser, Subject):
    """A tiny network for any part: a denoiser of points, a discriminator of states or features, a free subject."""

    def __init__(self, path: paths.GaussianPath) -> None:
        super().__init__(
            _Perceptron(), path, "x0", shape=(2,), null={"label": 2}, taps=("hidden",), scalar_sites=("time",)
        )
        self.place, self.gain = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.ones(1))

    def predict(self, x: Any, t: Any, cond: Any = None, **options: Any) -> Prediction:  # type: ignore[override]
        """As any denoiser; an extra scalar is added when it is first given."""
        with torch.random.fork_rng(devices=[]):
            for name in set(options) - {"cache", "taps"} - set(self.scalars):
                self.add_scalar(name)
        return super().predict(x, t, cond, **options)

    def forward(self, *args: Any, **options: Any) -> Any:
        """A prediction, or of features or states alone the logit of a discriminator [B]."""
        if len(args) > 1:
            return self.predict(*args, **options)
        seen = list(args[0].values()) if isinstance(args[0], Mapping) else tree.leaves(args[0])
        return self.gain * torch.stack([part.flatten(1).sum(1) for part in seen]).sum(0)

    def materialise(self, batch: Batch, rng: Rng) -> Any:
        """The free point, once a sample."""
        return self.place.expand(batch.size, 2).clone()  # a view of a parameter would carry gradient always


class Cast(Roles):
    """Roles that come to be when they are first asked for: an exact teacher, and players for all other parts."""

    def __init__(self, path: paths.GaussianPath, *names: str) -> None:
        super().__init__()
        self.path = path
        self.closed = False
        for name in names:
            _ = self[name]
        self.closed = bool(names)

    def __getitem__(self, name: str) -> Role:
        if name not in self._roles and not self.closed:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(len(self._roles))
                exact = name == "teacher"
                self.add(Role(name, Mixture(POINTS, 0.2, self.path, LABELS) if exact else Player(self.path)))
        return super().__getitem__(name)


class _AnyState(dict[str, Any]):
    """Targets or scalars of which any name can be asked."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, name: str) -> Any:
        return self.setdefault(name, self.make(name))

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def toy_batch(size: int = 8) -> Batch:
    """Points of the toy with their labels."""
    label = torch.arange(size) % 2
    return Batch(size, WORLD.data(size, Rng(7), label), {"label": label}, (2,))


def toy_event(ctx: Context, role: str) -> Event:
    """A prediction of one role on noised points, with any target that a loss may look for."""
    path, batch = ctx.roles[role].denoiser.path, toy_batch()
    t = path.t_min + (path.t_max - path.t_min) * (0.2 + 0.6 * Rng(1).uniform(batch.size))
    noise = batch.noise(Rng(2))
    x_t = path.noised(batch.x, noise, t)
    said = ctx.roles[role].predict(x_t, t, batch.cond)
    targets = _AnyState(lambda name: WORLD.data(batch.size, Rng(3), batch.cond["label"], name))
    scalars = _AnyState(lambda name: Rng(4).uniform(batch.size, stream=name))
    return Event(said.x0, batch.cond, t, x_t, noise, said, targets, scalars)


class _OneEvent(Trajectory):
    """The toy's event."""

    role: str = "student"

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        with torch.set_grad_enabled(attached):
            yield toy_event(ctx, self.role)


def on_some_path(run: Callable[[paths.GaussianPath], None]) -> None:
    """Run on the first of the toy's paths that the component accepts; whatever Unfit says is final."""
    first: Exception | None = None
    for path in TOY_PATHS:
        try:
            return run(path)
        except (Unfit, unittest.SkipTest):
            raise
        except Exception as error:  # it may be made for another path
            first = first or error
    assert first is not None
    raise Unfit(f"it does not run on the toy ({type(first).__name__}: {' '.join(str(first).split())})") from first


def untouched(run: Callable[[], Any]) -> Any:
    """What a function returns, which must leave the global random generator alone."""
    before = torch.get_rng_state()
    result = run()
    ensure(torch.equal(before, torch.get_rng_state()), "it draws from torch's global generator: draw from ctx.rng")
    return result


# ---------------------------------------------------------------- losses


def _toy_loss(case: Case, path: paths.GaussianPath) -> tuple[Loss, Cast, str]:
    loss: Loss = case.make()
    role = loss.moves[0] if loss.moves else "student"
    return loss, Cast(path, *dict.fromkeys((*loss.needs, *loss.moves, role))), role


@check("toy/terms", "loss")
def check_terms(case: Case) -> None:
    """Terms are named, finite, and one a sample or a scalar: the engine logs, weights and adds them by that rule.

    Mend: return a mapping of names to tensors [B] or []; name in `needs` every role that is asked.
    """

    def run(path: paths.GaussianPath) -> None:
        loss, cast, role = _toy_loss(case, path)
        ctx = Context(cast, Rng(0))
        terms = loss.terms(toy_event(ctx, role), ctx)
        ensure(terms, "it returns no term")
        for name, value in terms.items():
            ensure(value.shape in ((8,), ()), f"the term {name!r} has shape {tuple(value.shape)}: neither [B] nor []")
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
        before = _weights(cast)
        plan = Plan(
            phases=one_phase(
                [Update(trajectory=_OneEvent(role=role), loss=loss)], 1, {name: Optimiser() for name in loss.moves}
            )
        )
        Engine(cast, plan, lambda start: iter(toy_batch, None)).run()
        changed = {name for name, value in _weights(cast).items() if not torch.equal(value, before[name])}
        ensure(changed == set(loss.moves), f"it names {sorted(loss.moves)} and changes {sorted(changed)}")

    on_some_path(run)


def _weights(roles: Roles) -> dict[str, Tensor]:
    vectors = {name: [p.detach().flatten() for p in role.parameters()] for name, role in roles.items()}
    return {name: torch.cat([torch.zeros(1), *parts]) for name, parts in vectors.items()}


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
        total = sum(value.sum() for value in loss.terms(event, ctx).values())
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
            ensure(_equal(event.x, again.x), "the same seed gives another event")

    on_some_path(run)


@check("toy/moves", "trajectory")
def check_trajectory_moves(case: Case) -> None:
    """Gradient runs from an attached event to the roles that it names, and to no other; from a detached one, nowhere.

    Mend: correct `moves`; ask others with `role.ask`; honour `attached`.
    """

    def run(path: paths.GaussianPath) -> None:
        trajectory, cast = case.make(), Cast(path)
        _events(trajectory, cast, True)
        reached = {name for event in _events(trajectory, cast, True) for name in _reached(event, cast)}
        ensure(reached == set(trajectory.moves), f"it names {sorted(trajectory.moves)}, gradient reaches {sorted(reached)}")
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
        given = {name: Role(name, Player(path)) for name in {"teacher", "student"} - set(method.roles())}
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
        ensure(plan.phases, "its plan has no phase")

    on_some_path(run)


@check("toy/iterations", "method")
def check_iterations(case: Case) -> None:
    """Two iterations run, change nobody but the roles that the plan changes, and leave a student that can be sampled.

    Mend: the message says which part of the plan failed; try it with `distill train --debug`.
    """

    def run(path: paths.GaussianPath) -> None:
        with tempfile.TemporaryDirectory() as folder:
            engine = _toy_engine(case, path, Path(folder))
            before = _weights(engine.roles)
            engine.run(2)
        changed = {name for name, value in _weights(engine.roles).items() if not torch.equal(value, before[name])}
        shared = {n for n, role in engine.roles.items() if role.own is None and _lent(engine.roles, n)}
        wrong = changed - engine.plan.changed() - shared
        ensure(not wrong, f"the weights of {', '.join(sorted(wrong))} changed, which the plan does not name")
        x = engine.sampler.sample(engine.roles[engine.plan.result], Rng(0).normal(4, 2), rng=Rng(0))
        ensure(bool(torch.isfinite(x).all()), "samples after two iterations are not finite")

    on_some_path(run)


def _lent(roles: Roles, name: str) -> bool:
    """Whether another role holds the same module: an adapter's parameters live there too."""
    return any(role.module is roles[name].module for other, role in roles.items() if other != name)


@check("toy/resume", "method")
def check_resume(case: Case) -> None:
    """A run that was stopped and resumed ends with the very weights of one that was not.

    Mend: keep what a component remembers in `ctx.state` or in a role's buffers, never in attributes of its own.
    """

    def run(path: paths.GaussianPath) -> None:
        with tempfile.TemporaryDirectory() as folder:
            whole = _toy_engine(case, path, Path(folder) / "whole").run(3)
            half = _toy_engine(case, path, Path(folder) / "half").run(1)
            again = _toy_engine(case, path, Path(folder) / "half").resume(half.save())
            again.run(max(0, whole.step - again.step))
        same = all(torch.equal(a, b) for a, b in zip(_saved(whole), _saved(again), strict=True))
        ensure(same and whole.sampler == again.sampler, "a resumed run ends elsewhere than one that was never stopped")

    on_some_path(run)


def _saved(engine: Engine) -> list[Tensor]:
    return [value for name in engine.saved_roles() for value in engine.roles[name].tensors().values()]


# ---------------------------------------------------------------- transforms and lenses


@check("toy/transform", "transform")
def check_transform(case: Case) -> None:
    """Surgery leaves a denoiser that answers in the shape of the state, and whose weights can be saved and loaded.

    Mend: replace submodules in place, and keep new weights in parameters.
    """

    def run(path: paths.GaussianPath) -> None:
        cast, batch = Cast(path, "student"), toy_batch()
        with torch.random.fork_rng(devices=[]):
            case.make().apply(cast, "student")
        said = cast["student"].ask(batch.x, path.t_max / 2, batch.cond)
        ensure(said.value.shape == batch.x.shape, f"afterwards {tuple(batch.x.shape)} gives {tuple(said.value.shape)}")
        tensors = {name: value.clone() for name, value in cast["student"].tensors().items()}
        cast["student"].load(load(save(tensors)))
        ensure(bool(cast["student"].parameters()), "it leaves the role nothing to train")

    on_some_path(run)


SHAPES = ((2,), (3, 16, 16), (4, 3, 16, 16), (2, 4096), (16, 3))
"""Shapes of a sample with which a lens is tried: a vector, a picture, a clip, a sound, points."""


@check("toy/lens", "lens")
def check_lens(case: Case) -> None:
    """A teacher's opinion reaches the student through the lens: it must be differentiable and draw no random numbers.

    Mend: compute with tensors only; declare `conformance` where the state is none of the usual shapes.
    """
    lens = case.make()
    errors = []
    for shape in SHAPES:
        x = Rng(0).normal(2, *shape).requires_grad_()
        try:
            shown = untouched(lambda x=x: lens(x))
        except Unfit:
            raise
        except Exception as error:  # not a state of its modality
            errors.append(f"{list(shape)}: {error}")
            continue
        total: Any = sum(leaf.sum() for leaf in tree.leaves(shown))
        ensure(total.requires_grad and bool(torch.autograd.grad(total, x)[0].abs().sum() > 0), "no gradient runs through it")
        return
    raise Unfit(f"it takes none of the states {'; '.join(errors)}")


# ---------------------------------------------------------------- data, modalities, metrics


@check("samples", "dataset")
def check_samples(case: Case) -> None:
    """Samples are mappings with a state `x`, many enough for a batch, the same whenever they are asked for.

    Mend: return {"x": ..., conditions}; draw from a generator seeded by the row; share one shape, or use Ragged.
    """
    samples = untouched(lambda: case.make().open())
    ensure(len(samples) > 1, f"it has {len(samples)} samples")
    ensure(isinstance(samples[0], Mapping) and "x" in samples[0], "a sample is not a mapping with the key 'x'")
    first, again = collate([samples[0], samples[1]]), collate([samples[0], samples[1]])
    ensure(tree.batch_size(first["x"]) == 2, "two samples do not make a batch of two")
    ensure(_equal(first["x"], again["x"]), "a sample differs when it is asked for again")


@check("files", "modality")
def check_files(case: Case) -> None:
    """A person sees samples through files and one picture: each sample is written, with the suffix that is announced.

    Mend: write one file or more a sample, named after `stem`, and return their paths; draw previews as PNG.
    """
    modality, samples = case.make(), case.states(3)
    with tempfile.TemporaryDirectory() as folder:
        written = untouched(lambda: modality.write(samples, Path(folder) / "out", "thing"))
        ensure(len(written) >= 3, f"3 samples gave {len(written)} files")
        for path in written:
            ensure(path.is_file() and path.stat().st_size, f"{path.name} is missing or empty")
            ensure(path.name.startswith("thing"), f"{path.name} does not begin with the stem 'thing'")
        ensure(any(path.suffix == modality.suffix for path in written), f"no file ends in {modality.suffix!r}")
        picture = modality.preview(samples, Path(folder) / "preview.png")
        ensure(picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", "the preview is not a PNG")


@check("measure", "metric")
def check_measure(case: Case) -> None:
    """A metric is a finite number, the same for the same samples, and prefers the data themselves to spoilt data.

    Mend: set `higher_is_better`; draw random directions and subsets from a fixed seed.
    """
    metric, reference = case.make(), case.states(64)
    spread = max(float(leaf.float().std()) for leaf in tree.leaves(reference))
    spoilt = tree.combine((1.0, reference), (3 * spread + 0.1, Rng(1).normal_like(reference)))
    good, again, bad = (untouched(lambda s=s: metric.measure(s, reference)) for s in (reference, reference, spoilt))
    ensure(all(map(torch.isfinite, map(torch.tensor, (good, bad)))), f"it measures {good} and {bad}")
    ensure(good == again, f"the same samples measure {good} and {again}")
    better = good > bad if metric.higher_is_better else good < bad
    ensure(better, f"the data measure {good:.4g}, the same with noise {bad:.4g}: it prefers the worse")


assert set(BASES) == {kind for _, kinds, _ in CHECKS for kind in kinds}
assert all(issubclass(base, Options) for base in BASES.values())
