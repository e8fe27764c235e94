"""Roll-outs that are made once: noises, what a role makes of them, and their conditions, kept on disk."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from distill.core import Batch, Context, DistillError, Event, Loss, Sampler, Terms, Trajectory, tree
from distill.core.contracts import Fit
from distill.core.errors import DataError
from distill.core.rng import Rng
from distill.core.roles import Role
from distill.core.store import RecordRng, Rows, Store, digest_of, identity_of, pack, reopened, unpack
from distill.methods.losses import distance
from distill.methods.trajectories import Generate


class Recording(Fit):
    """Roll a role out once and keep what `record` makes of it. The student's sampler stays as it is.

    In a run with a folder, or with a `store`, records lie on disk: record k follows from the seed and k alone, ranks
    share the work, and a run with the same store uses what it finds. Otherwise they lie in the run's state. Conditions
    are drawn from the run's dataset, or from one batch where there is none.
    """

    kept: ClassVar[str] = ""
    """What records are called in the run: a folder's name, the head of their names in its state."""
    count: int = 1024
    """How many to make."""
    role: str = "teacher"
    """Who makes them."""
    chunk: int = 256
    """How many are made at a time, and lie in one file of a store."""
    store: Path | None = None
    """Folder of the store, which runs may share; one in the run's folder if None."""
    seed: int = 0
    """Of a store's noises and conditions."""

    @abstractmethod
    def record(self, role: Role, noise: Any, cond: Mapping[str, Any], rng: Rng) -> dict[str, Any]:
        """Named states of one roll-out for each noise."""

    def fit(self, batch: Batch, ctx: Context, sampler: Any) -> Any:
        path = self._path(ctx)
        if path is None:
            ctx.state.update(pack({self.kept: self._in_memory(batch, ctx)}))
        else:
            store = self._filled(path, batch, ctx)
            ctx.stores[self.kept] = store
            ctx.state[self._mark] = torch.tensor(list(store.digest.encode()), dtype=torch.uint8)
        return sampler

    def reopen(self, batch: Batch, ctx: Context) -> None:
        """Find the store that the run had been trained with, or make it again."""
        path, mark = self._path(ctx), ctx.state.get(self._mark)
        if path is None or mark is None:
            return
        digest = bytes(mark.tolist()).decode()
        store = reopened(path, self.kept, self.count, digest) or self._filled(path, batch, ctx)
        if store.digest != digest:
            raise DataError(f"{path} does not hold the {self.kept} that this run was trained with: start the run anew")
        ctx.stores[self.kept] = store

    @property
    def _mark(self) -> str:
        return f"store/{self.kept}"

    def _path(self, ctx: Context) -> Path | None:
        return self.store or (ctx.folder / self.kept if ctx.folder else None)

    def _filled(self, path: Path, batch: Batch, ctx: Context) -> Store:
        rows = Rows(Seen(batch) if ctx.dataset is None else ctx.dataset, self.seed)
        options = self.model_dump(mode="json", exclude={"count", "role", "chunk", "store"}, serialize_as_any=True)
        facts = {"conditions": rows.digest, "shape": digest_of(json.loads(json.dumps(self._shape(batch, ctx))))}
        identity = {**identity_of(ctx.roles[self.role]), **facts, **flat(options)}
        store = Store(path, self.kept, identity, shard=min(self.chunk, self.count))
        shared = any(isinstance(p, DTensor) for p in ctx.roles[self.role].module.parameters())
        return store.fill(self.count, partial(self._numbered, rows, batch, ctx), together=shared)

    def _shape(self, batch: Batch, ctx: Context) -> Any:
        return batch.shape or ctx.roles[self.role].denoiser.shape

    def _numbered(self, rows: Rows, batch: Batch, ctx: Context, records: range) -> dict[str, Any]:
        rng = RecordRng(self.seed, records, ctx.rng.device)
        cond = {name: tree.to(value, rng.device) for name, value in rows(records).items()}
        return self._made(len(records), cond, batch, ctx, rng)

    def _made(self, size: int, cond: dict[str, Any], batch: Batch, ctx: Context, rng: Rng) -> dict[str, Any]:
        role, noise = ctx.roles[self.role], Batch(size, shape=self._shape(batch, ctx)).noise(rng, f"{self.kept}/noise")
        return {**self.record(role, noise, cond, rng), "cond": cond}

    def _in_memory(self, batch: Batch, ctx: Context) -> dict[str, Any]:
        parts = []
        for done in range(0, self.count, self.chunk):
            size = min(self.chunk, self.count - done)
            rows = ctx.rng.integers(batch.size, size, stream=f"{self.kept}/condition")
            cond = {name: tree.index(value, rows) for name, value in batch.cond.items()}
            parts.append(self._made(size, cond, batch, ctx, ctx.rng))
        joined: dict[str, Any] = tree.concatenate(parts)
        return joined


class Seen(Dataset[Any]):
    """The conditions of a batch, where a run has no dataset to draw them from."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return self.batch.size

    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        return {name: tree.index(value, torch.tensor(rows)) for name, value in self.batch.cond.items()}


def flat(options: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested options under dotted names."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


class MakePairs(Recording):
    """Noises and the ends that a role's sampler makes of them."""

    kept: ClassVar[str] = "pairs"
    sampler: Sampler = Sampler()
    """How: steps, solver, guidance."""

    def record(self, role: Role, noise: Any, cond: Mapping[str, Any], rng: Rng) -> dict[str, Any]:
        return {"noise": noise, "end": self.sampler.sample(role, noise, cond, rng)}


class RecordStates(Recording):
    """Noises and the states that a role's sampler passes on its way: `x-0` at its start, `x-n` after n steps."""

    kept: ClassVar[str] = "states"
    sampler: Sampler = Sampler()
    """How: steps, solver, guidance."""
    at: tuple[int, ...] = (0,)
    """Numbers of steps after which a state is kept, besides the end."""

    def record(self, role: Role, noise: Any, cond: Mapping[str, Any], rng: Rng) -> dict[str, Any]:
        moves = list(self.sampler.walk(role, noise, cond, rng))
        states = [moves[0].x, *(move.next for move in moves)]
        return {"noise": noise, **{f"x-{n}": states[n] for n in self.at}, "end": states[-1]}


def recalled(kept: str, size: int, ctx: Context, made_by: type[Recording]) -> dict[str, Any]:
    """Records, drawn with replacement: their named states, conditions under `cond`.

    Raises:
        DistillError: nothing of that name was recorded.
    """
    if kept in ctx.stores:
        store = ctx.stores[kept]
        rows = ctx.rng.integers(len(store), size, stream=f"{kept}/row")
        return {"cond": {}, **tree.to(store.read(rows), ctx.rng.device)}
    inside = {name: value for name, value in ctx.state.items() if name.startswith(f"{kept}/")}
    if not inside:
        raise DistillError(f"this run has no {kept}: begin the plan with a phase whose fit is {made_by.__name__}")
    states = unpack(inside)[kept]
    rows = ctx.rng.integers(tree.batch_size(states), size, stream=f"{kept}/row")
    return {"cond": {}, **tree.index(states, rows)}


def recall(size: int, ctx: Context) -> tuple[Any, Any, dict[str, Any]]:
    """Stored pairs, drawn with replacement: noise, end point and conditions of `size` samples."""
    found = recalled("pairs", size, ctx, MakePairs)
    return found["noise"], found["end"], found["cond"]


class Paired(Trajectory):
    """The student's fresh samples and its answers to stored noises (DMD, arXiv:2311.18828, algorithm 1).

    `meta["paired"]` are the answers, `targets["end"]` the teacher's end points for the same noises.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have stored pairs"}
    generate: Generate = Generate()
    """How fresh samples are made, in one step."""
    joined: bool = True
    """The answers belong to the samples that the other losses see."""

    @property
    def moves(self) -> tuple[str, ...]:
        return self.generate.moves

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        role, time = ctx.roles[self.generate.role], self.generate.times[0]
        for event in self.generate.events(batch, ctx, attached=attached):
            noise, end, cond = recall(batch.size, ctx)
            start = role.denoiser.path.prior(noise, time)
            with torch.set_grad_enabled(attached):
                answer = ctx.through_lens(role.predict(start, time, cond).x0)
                x = tree.concatenate([event.x, answer]) if self.joined else event.x
            both = {key: tree.concatenate([event.cond[key], cond[key]]) for key in cond} if self.joined else event.cond
            yield Event(x, both, targets={"end": ctx.through_lens(end)}, meta={"paired": answer})


class PairRegression(Loss):
    """Answers to stored noises against the teacher's end points (DMD, arXiv:2311.18828, eq. 9)."""

    weight: float = 0.25
    """Factor of this loss beside the score difference."""
    metric: Literal["l2", "l1", "huber"] = "l2"
    """Discrepancy; a modality's perceptual distance takes its place where there is one."""

    def terms(self, event: Event, ctx: Context) -> Terms:
        return {"pairs": distance(self.metric, event.meta["paired"], event.targets["end"])}


class Replay(Trajectory):
    """Another trajectory, fed with stored end points for data: training on a teacher's own samples."""

    conformance: ClassVar[dict[str, str]] = {
        "options": "what is inside is a trajectory of any class, which JSON cannot name",
        "toy": "a phase before must have stored pairs",
    }
    inner: Trajectory
    """What happens with them."""

    @property
    def moves(self) -> tuple[str, ...]:
        return self.inner.moves

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        _, end, cond = recall(batch.size, ctx)
        yield from self.inner.events(Batch(batch.size, end, cond, batch.shape), ctx, attached=attached)
