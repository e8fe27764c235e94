"""What plugins implement: one screen of values and base classes. `docs/architecture.md` says how they meet.

trajectory.events(batch, ctx) ──▶ Event ──▶ loss.terms(event, ctx) ──▶ {name: tensor} ──▶ engine moves loss.moves
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from distill.core.denoiser import Denoiser, Shape
from distill.core.errors import DistillError, RecipeError
from distill.core.options import Options
from distill.core.prediction import Prediction
from distill.core.rng import Rng
from distill.core.roles import Role, Roles
from distill.core.tree import State

if TYPE_CHECKING:
    from distill.core.plan import Plan
    from distill.core.store import Store


@dataclass(frozen=True)
class Batch:
    """What one step gets of the data: states (or none, for data-free methods) and named conditions."""

    size: int
    x: State | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape | None = None

    @property
    def data(self) -> Any:
        """The states, for methods that cannot do without.

        Raises:
            RecipeError: there are none.
        """
        if self.x is None:
            raise RecipeError("this method learns from data, and there are none: name a dataset under 'data:'")
        return self.x

    def noise(self, rng: Rng, stream: str = "noise") -> Any:
        """Standard normal noise in the structure of the data, or of the shape that the denoiser declares."""
        if self.x is not None:
            return rng.normal_like(self.x, stream=stream)
        if isinstance(self.shape, Mapping):
            return {k: rng.normal(self.size, *s, stream=f"{stream}/{k}") for k, s in self.shape.items()}
        return rng.normal(self.size, *(self.shape or ()), stream=stream)


@dataclass
class Event:
    """One moment at which something can be learnt.

    Attributes:
        x: the state that losses look at: data, a student's sample, a rendered view; with gradient where attached.
        cond: its conditions.
        t: the time at which a network met it, in the path's units; None where there is none.
        x_t: the state at t.
        noise: the noise in x_t, where known.
        prediction: what the moving role said at (x_t, t).
        targets: named states to compare with.
        scalars: extra inputs that the networks get with it (a guidance weight, a target time), [B] each.
        weight: one weight per sample [B], or None.
        meta: anything else: step index, chunk, camera, metric values.
    """

    x: Any
    cond: Mapping[str, Any] = field(default_factory=dict)
    t: Any = None
    x_t: Any = None
    noise: Any = None
    prediction: Prediction | None = None
    targets: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    weight: Tensor | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def real(self) -> Any:
        """The data of the batch, for losses that cannot do without.

        Raises:
            RecipeError: there are none.
        """
        if "real" not in self.targets:
            raise RecipeError(
                "a loss of this method compares with data, and there are none: name a dataset under 'data:'"
            )
        return self.targets["real"]


@dataclass
class Context:
    """What a trajectory and a loss may use besides the event.

    `state` holds what components own between steps (banks, multipliers, ratios) as named tensors: saved and resumed.
    `folder` is the run's, where it has one, `dataset` what its batches are drawn from, and `stores` holds what was
    made once and lies on disk.
    """

    roles: Roles
    rng: Rng
    step: int = 0
    progress: float = 0.0
    lens: Lens | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    folder: Path | None = None
    dataset: torch.utils.data.Dataset[Any] | None = None
    stores: dict[str, Store] = field(default_factory=dict)

    def through_lens(self, x: State) -> Any:
        """The state in the teacher's modality."""
        return x if self.lens is None else self.lens(x)

    def conditions(self, cond: Mapping[str, Any], x: State) -> Mapping[str, Any]:
        """The conditions of `through_lens(x)`."""
        return cond if self.lens is None else self.lens.conditions(cond, x)


Terms = Mapping[str, Tensor]


class Trajectory(Options):
    """How states move: yields the events that losses see.

    `moves` names the role whose gradient runs through the events, if any.
    """

    @property
    def moves(self) -> tuple[str, ...]:
        return ("student",)

    @abstractmethod
    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        """Yield events; with `attached` false nobody needs a gradient through them.

        The engine steps the optimisers at each event before it asks for the next one.
        """


class Loss(Options):
    """What is minimised.

    `needs` names the roles that must exist; `moves` those that the terms may move: gradient reaches nobody else.
    """

    weight: float = 1.0
    """Factor of every term of this loss."""

    @property
    def needs(self) -> tuple[str, ...]:
        return self.moves

    @property
    def moves(self) -> tuple[str, ...]:
        return ("student",)

    @abstractmethod
    def terms(self, event: Event, ctx: Context) -> Terms:
        """Named terms, one value per sample [B] or a scalar each; the engine reduces, weights and adds them."""


class Action(Options):
    """An update without a gradient: EMA, copies, hand-overs, dual ascent."""

    every: int = 1
    """Optimiser steps between two applications."""

    @property
    def changes(self) -> tuple[str, ...]:
        """Roles whose weights this action writes: they are saved with the run."""
        return ()

    @abstractmethod
    def apply(self, ctx: Context) -> None:
        """Do it."""


class Fit(Options):
    """A phase that calibrates instead of training: returns an artefact that is saved with the student."""

    @abstractmethod
    def fit(self, batch: Batch, ctx: Context, sampler: Any) -> Any:
        """The student's new `Sampler`, from a calibration batch and the sampler so far."""

    def reopen(self, batch: Batch, ctx: Context) -> None:
        """Put back what it had left in no checkpoint, for a run that goes on after it; `batch` is what it had then."""
        return


Ports = str | Mapping[str, str]
"""What an edge of a pipeline carries, the name of a modality or of a condition; or what several do, by their names."""


class Lens(Options):
    """A differentiable map from one modality to another: render, decode, frames, spectrogram.

    In a pipeline it stands between edges: `takes` and `gives` say what they carry; a lens that says nothing fits none.
    `units` names options that say how what it takes is to be read, each with its unit in words, such as
    `{"rate": "frames a second"}`: the edge sets them. With several edges their names begin with the edge's.
    """

    takes: ClassVar[Ports] = ""
    gives: ClassVar[Ports] = ""
    units: ClassVar[Mapping[str, str]] = {}

    @property
    def carried(self) -> dict[str, Any]:
        """Values of the units of what it gives."""
        return {}

    @abstractmethod
    def __call__(self, state: State) -> Any:
        """The state in the other modality."""

    def conditions(self, cond: Mapping[str, Any], state: State) -> Mapping[str, Any]:
        """The conditions of the samples that the state becomes; a lens that makes several of one repeats them."""
        return cond


class Subject(nn.Module):
    """What is optimised where there is no student network: a free tensor, a set of Gaussians.

    `rates` are factors of the learning rate, by a parameter's name; those that it leaves out have 1.
    """

    rates: Mapping[str, float] = {}

    @abstractmethod
    def materialise(self, batch: Batch, rng: Rng) -> Any:
        """A state with gradient: itself, a view, a frame."""

    def adopt(self, tensors: Mapping[str, Tensor]) -> None:
        """Take on the sizes of saved parameters, which a resumed run had grown or shrunk to."""
        for name, parameter in self.named_parameters():
            if name in tensors and tensors[name].shape != parameter.shape:
                parameter.data = torch.empty_like(tensors[name], device=parameter.device)

    def on_step_end(self) -> bool:
        """Densify, prune, split; true if parameters were replaced and optimisers must look again."""
        return False

    def carry(self, name: str, value: Tensor) -> Tensor | None:
        """What an optimiser remembers of a parameter, for the one that has replaced it since; None is nothing."""
        return None


@dataclass(frozen=True)
class Outcome:
    """What a run made: the role, how it is sampled, and facts about both for whoever gets it.

    Facts are `method`, `teacher`, `recipe`, `metrics` and `versions`.
    """

    role: Role
    sampler: Any
    facts: Mapping[str, Any] = field(default_factory=dict)


class Builder(Options):
    """Options of a denoiser component, and how to build it."""

    @property
    def adds_conditions(self) -> bool:
        """Whether a role of this network needs what `encode` says of prompts, beside the run's own conditions."""
        return False

    @classmethod
    def reads(cls, model: str) -> bool:
        """Whether `{model: ...}` without a name may mean this denoiser.

        Raises:
            DistillError: the model is of this denoiser's sort, but something about it is wrong.
        """
        return False

    @abstractmethod
    def build(self) -> Denoiser:
        """The denoiser, with its weights where it has any."""

    def sampler(self) -> Any:
        """How to sample this denoiser when nothing else is said."""
        from distill.core.sampling import Sampler

        return Sampler()

    def modality(self) -> Modality | None:
        """What its samples look like, where that depends on the model; None leaves it to the component's modality."""
        return None

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Conditions for prompts, one of each a prompt."""
        raise RecipeError(f"{type(self).__name__} reads no prompts: give conditions as name=number")

    def export_outcome(self, outcome: Outcome, to: str, folder: Path) -> list[Path]:
        """`export` of a run's outcome, for formats that hold more than a network."""
        return self.export(outcome.role.alone(), outcome.sampler, to, folder)

    def export(self, denoiser: Denoiser, sampler: Any, to: str, folder: Path) -> list[Path]:
        """Write trained weights for other libraries; `to` is one of the names in `exports()`."""
        if to not in self.exports():
            known = ", ".join(sorted(self.exports()))
            raise RecipeError(f"{type(self).__name__} cannot be exported to '{to}'; choose one of {known}")
        folder.mkdir(parents=True, exist_ok=True)
        return self.exports()[to](denoiser, sampler, folder)

    def exports(self) -> dict[str, Callable[[Denoiser, Any, Path], list[Path]]]:
        """Formats that this network can be written in, and how."""
        return {"safetensors": self._export_safetensors, "safetensors-8bit": partial(self._export_safetensors, bits=8)}

    def _export_safetensors(self, denoiser: Denoiser, sampler: Any, folder: Path, bits: int = 32) -> list[Path]:
        from safetensors.torch import save_file

        from distill.core.checkpoint import shrunk

        weights, about = folder / "denoiser.safetensors", folder / "denoiser.json"
        tensors = {name: value.contiguous() for name, value in denoiser.state_dict().items()}
        save_file(shrunk(tensors) if bits == 8 else tensors, weights)
        facts = {"denoiser": type(self).__name__, "options": self.model_dump(mode="json")}
        about.write_text(json.dumps(facts | {"sampler": sampler.model_dump(mode="json")}, indent=1) + "\n")
        return [weights, about]


class HeadBuilder(Options):
    """Options of a module that looks at another role: a discriminator's heads, a projector."""

    features: str = ""
    """Role that is looked at, and must therefore exist first."""

    @abstractmethod
    def build(self, roles: Roles) -> nn.Module:
        """The module, in the sizes that the other roles ask for."""


class Transform(Options):
    """Surgery on a role: adapters, extra inputs, dropped layers."""

    @abstractmethod
    def apply(self, roles: Roles, name: str) -> None:
        """Change role `name` in place."""


class DataSource(Options):
    """Options of a dataset component, and how to open it."""

    @abstractmethod
    def open(self, split: str = "train") -> torch.utils.data.Dataset[Any]:
        """A map-style dataset of samples `{"x": state of one sample, name of a condition: value, ...}`."""


class Metric(Options):
    """A number that tells how good samples are. `higher_is_better` gives the direction."""

    higher_is_better: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = True
    """Whether it compares with real samples; where data have none, such a metric gets None and is refused before."""
    per_prompt: ClassVar[bool] = False
    """Whether it means something for the samples of a single prompt."""

    @abstractmethod
    def measure(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> float:
        """Compare samples with reference data. The conditions hold the samples' texts under `prompt`, a list, where the
        data have captions."""

    def numbers(self, samples: State, reference: State, cond: Mapping[str, Any] | None = None) -> dict[str, float]:
        """Everything that is measured: under an empty name the number itself, under others what goes with it."""
        return {"": self.measure(samples, reference, cond)}

    def asking(self, role: Role) -> Metric:
        """Itself for the samples of a role; a metric that asks the network as well keeps the role."""
        return self

    def network(self, samples: State) -> str:
        """Name of the network in whose features such samples are compared: it stands beside every number."""
        return ""


@dataclass(frozen=True)
class Streaming:
    """A request for one sample that is written while it is made.

    Attributes:
        out: the file.
        seconds: how long it is.
        conditions: what it shows from which second on, the first from second 0.
        sampler: how the role is sampled.
        start: a file, or a state, that it goes on from; None where it begins with nothing.
        seed: the seed of the noise.
        files: conditions that follow a file through the whole sample, by name.
    """

    out: Path
    seconds: float
    conditions: Sequence[tuple[float, Mapping[str, Any]]]
    sampler: Any
    start: Path | State | None = None
    seed: int = 0
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """One way to make samples, such as a teacher with all its steps.

    Attributes:
        role: who makes them.
        sampler: how.
        draw: so many of them; every way of a run meets the same noises and conditions.
        conditions: those of so many of them.
    """

    role: Role
    sampler: Any
    draw: Callable[[int], State]
    conditions: Callable[[int], Mapping[str, Any]]


class Modality(Options):
    """What samples look like to a person and to a file system.

    `units` names options that say how samples are to be read, as a lens's; `parts` what a joint state consists of.
    """

    units: ClassVar[Mapping[str, str]] = {}
    parts: ClassVar[Mapping[str, str]] = {}
    suffix: ClassVar[str] = ""
    has_demo: ClassVar[bool] = False
    precedence: ClassVar[int] = 0
    """Whose demo it is where nobody names a modality: that of the largest."""
    pair: ClassVar[tuple[str, str] | None] = None
    """Denoisers, a teacher and its student, that `distill demo` shows without training anything."""
    pair_steps: ClassVar[tuple[int, ...]] = (1, 2, 4)
    """Numbers of steps that the student is shown with, as far as its own number allows."""
    pair_data: ClassVar[dict[str, Any] | None] = None
    """The dataset, as in a recipe, whose conditions they are shown under where there is no prompt."""
    streams: ClassVar[bool] = False
    """Whether samples can be written while they are made."""
    compared: ClassVar[int | None] = None
    """Most real samples that metrics compare with, for modalities whose latents are dear to decode; all if None."""

    def demo_recipe(self) -> Path:
        """The recipe of `distill demo`, where the plugin ships a teacher."""
        raise DistillError(f"{type(self).__name__} has no demo")

    def decode(self, samples: State) -> Any:
        """What people and metrics see of samples: themselves, unless they are latents."""
        return samples

    def stream(self, role: Role, request: Streaming) -> str:
        """Write one sample of a role while it is made, in memory that does not grow; says how that went."""
        raise RecipeError(f"{type(self).__name__} samples cannot be streamed: draw whole ones, without --stream")

    def lasting(self, role: Role, request: Streaming) -> Any:
        """One sample of a role that lasts a request's seconds, what it goes on from among them; `out` is not used."""
        raise RecipeError(f"{type(self).__name__} samples have no length to choose: leave 'seconds' and 'start' out")

    @abstractmethod
    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        """Write each sample as a file; returns the paths."""

    @abstractmethod
    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        """One picture of several samples, as a PNG."""

    def live(self, path: Path, port: int) -> Any:
        """Serve a page on 127.0.0.1, on this port or the next free one, on which a written file is seen from all sides.

        Returns the server, with `get_port()` and `stop()`; None where a file needs no such page.
        """
        return None

    def side_by_side(self, ways: Mapping[str, Way], folder: Path) -> dict[str, str]:
        """Pictures of what a teacher and its student make of the same noises, for the report of a run.

        Returns names of files in the folder (PNG, GIF or SVG), each with a caption; none where `preview` says it all.
        """
        return {}


class RoleSpec(Options):
    """How a method gets one of its roles: a copy of another role, another view of its weights, or a new module."""

    copy_of: str = ""
    """Start from a copy of this role's weights."""
    shares: str = ""
    """Hold the very module of this role (an adapter makes the difference)."""
    build: HeadBuilder | Builder | None = None
    """Build a new module."""
    transforms: tuple[Transform, ...] = ()
    """Surgery, in order."""
    frozen: bool = False
    """Never moved by a gradient; EMA copies are an example."""
    guidance: float | dict[str, float] = 1.0
    """w of the role's own guidance; of a joint state each modality may have its own."""


class Method(Options):
    """A paper as data: its roles and its plan."""

    steps: PositiveInt = 1000
    """Optimiser iterations, all phases together unless the method says otherwise."""

    def roles(self) -> dict[str, RoleSpec]:
        """Roles besides the teacher."""
        return {"student": RoleSpec(copy_of="teacher")}

    def knowing(self, student: Any) -> Method:
        """The method for a student that is sampled in a way of its own; one that trains it has no use for that."""
        return self

    @abstractmethod
    def plan(self, teacher: Any) -> Plan:
        """Phases, losses, optimisers, and the student's sampler. `teacher` is the teacher's Builder.sampler()."""
