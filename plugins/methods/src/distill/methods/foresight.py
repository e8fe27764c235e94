"""What will become of a sample: predictions on the way beside ends, and judges that learn to tell these from those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from distill.core import Batch, Context, Event, Loss, Rng, Role, Sampler, Terms, Trajectory
from distill.methods.pairs import Recording, recalled
from distill.methods.samplers import judge


class RecordRoutes(Recording):
    """Predictions after some steps of a role's roll-outs, and where these end."""

    kept: ClassVar[str] = "routes"
    count: int = 5000
    """Roll-outs."""
    at: tuple[int, ...] = (2, 6, 11)
    """Numbers of steps."""
    role: str = "student"
    """Who is rolled out."""
    route: Sampler = Sampler(steps=20)
    """How."""

    def record(self, role: Role, noise: Any, cond: Mapping[str, Any], rng: Rng) -> dict[str, Any]:
        moves = list(self.route.walk(role, noise, cond, rng))
        return {f"x0-{n}": moves[n - 1].prediction.x0 for n in self.at} | {"end": moves[-1].next}


class Foresight(Trajectory):
    """A recorded prediction, and where its route ended as the target `end`."""

    conformance: ClassVar[dict[str, str]] = {"toy": "a phase before must have recorded routes"}
    after: int = 2
    """Number of steps after which it was said."""

    @property
    def moves(self) -> tuple[str, ...]:
        return ()

    def events(self, batch: Batch, ctx: Context, *, attached: bool) -> Iterator[Event]:
        found = recalled("routes", batch.size, ctx, RecordRoutes)
        yield Event(found[f"x0-{self.after}"], found["cond"], targets={"end": found["end"]})


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
