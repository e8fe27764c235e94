"""What will become of a sample: predictions on the way beside ends, and judges that learn to tell these from those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from distill.core import Batch, Context, DistillError, Event, Fit, Loss, Sampler, Terms, Trajectory, tree
from distill.methods.pairs import pack, unpack
from distill.methods.samplers import chosen, judge


class RecordRoutes(Fit):
    """Roll a role out once and keep its predictions after some steps, ends and conditions in the run's state.

    Conditions are those of one batch, drawn with replacement. The sampler stays as it is.
    """

    count: int = 5000
    """Roll-outs."""
    at: tuple[int, ...] = (2, 6, 11)
    """Numbers of steps."""
    role: str = "student"
    """Who is rolled out."""
    route: Sampler = Sampler(steps=20)
    """How."""
    chunk: int = 256
    """Roll-outs that are made at a time."""

    def fit(self, batch: Batch, ctx: Context, sampler: Any) -> Any:
        sizes = [min(self.chunk, self.count - done) for done in range(0, self.count, self.chunk)]
        parts = [self._make(size, batch, ctx) for size in sizes]
        for name in parts[0]:
            ctx.state.update(pack(f"routes/{name}", tree.concatenate([part[name] for part in parts])))
        return sampler

    def _make(self, size: int, batch: Batch, ctx: Context) -> dict[str, Any]:
        role = ctx.roles[self.role]
        cond = chosen(batch.cond, ctx.rng.integers(batch.size, size, stream="routes/condition"))
        noise = Batch(size, shape=batch.shape or role.denoiser.shape).noise(ctx.rng, "routes/noise")
        moves = list(self.route.walk(role, noise, cond, ctx.rng))
        seen = {f"x0-{n}": moves[n - 1].prediction.x0 for n in self.at}
        return seen | {"end": moves[-1].next} | {f"cond/{name}": value for name, value in cond.items()}


class Foresight(Trajectory):
    """A recorded prediction, and where its route ended as the target `end`."""

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have recorded routes"}
    after: int = 2
    """Number of steps after which it was said."""

    @property
    def moves(self) -> tuple[str, ...]:
        return ()

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        seen, end, cond = (unpack(ctx.state, f"routes/{name}") for name in (f"x0-{self.after}", "end", "cond"))
        if not tree.leaves(end):
            raise DistillError("this run has no recorded routes: begin the plan with a phase whose fit is RecordRoutes")
        rows = ctx.rng.integers(tree.batch_size(end), batch.size, stream="routes/row")
        yield Event(tree.index(seen, rows), chosen(cond, rows), targets={"end": tree.index(end, rows)})


class ScoreAhead(Loss):
    """A judge's score of a prediction against the oracle's of what becomes of it (TTSnap, arXiv:2511.22242)."""

    conformance: ClassVar[dict[str, str]] = {"toy": "its roles are judges, which score samples and denoise none"}
    role: str = "oracle-2"
    """The judge."""
    oracle: str = "oracle"
    """Who scores the end."""

    @property
    def needs(self) -> tuple[str, ...]:
        return (self.role, self.oracle)

    @property
    def moves(self) -> tuple[str, ...]:
        return (self.role,)

    def terms(self, event: Event, ctx: Context) -> Terms:
        wanted = judge(ctx.roles[self.oracle], event.targets["end"], event.cond).detach()
        return {"score_ahead": (judge(ctx.roles[self.role], event.x, event.cond) - wanted) ** 2}
