"""CausVid: a causal student of a bidirectional teacher, by regression and then by distribution matching."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from distill.core import EMA, Copy, Loss, Method, Optimiser, Phase, Plan, RoleSpec, Sampler, Trajectory, Update
from distill.core.sampling import Consistency, Grid
from distill.methods.losses import Denoise, Match, ScoreDifference
from distill.methods.pairs import RecordStates
from distill.methods.times import UniformTimes
from distill.video.attention import Reach
from distill.video.networks import Causal
from distill.video.streaming import ChunkSampler
from distill.video.trajectories import ChunkKeys, ChunkNoise

LEVELS = UniformTimes(low=0.02, high=0.98)


class CausVid(Method):
    """From Slow Bidirectional to Fast Causal Video Generators (Yin et al. 2024, arXiv:2412.07772).

    The student holds the teacher's weights under a block-causal mask. It first learns the ends of the teacher's stored
    routes from key states, each chunk at one of its own; then distribution matching moves its answers on data whose
    chunks have noise levels of their own, clean ones among them, while teacher and critic look both ways.
    """

    conformance: ClassVar[dict[str, str]] = {"toy": "the toy is not causal"}
    reach: Reach = Reach(chunk=3)
    """Which frames the student's frames see."""
    times: tuple[float, ...] = (1.0, 0.757, 0.522)
    """The student's times, descending; chunks at 0 are context."""
    walk: Sampler | None = Sampler(steps=50, grid=Grid(shift=8.0), guidance=6.0)
    """How the teacher makes its routes; its own sampler if None."""
    at: tuple[int, ...] = (0, 36, 44)
    """Numbers of its steps after which the states have the student's times."""
    clean_keys: bool = True
    """Chunks of the first phase may be clean context too."""
    routes: int = 1500
    """How many are stored; 0 leaves out the first phase, unless it has data."""
    ends: Literal["routes", "data"] = "routes"
    """What the first phase regresses to: the ends of the teacher's routes, or data, noised anew."""
    first: int = 3000
    """Iterations of the first phase; `steps` are those of the second."""
    score: ScoreDifference = ScoreDifference(times=LEVELS, guidance=4.5)
    """Distribution matching: levels, guidance."""
    critic: Denoise = Denoise()
    """The critic's denoising of the student's clips."""
    critic_updates: int = 5
    """Updates of the critic per update of the student."""
    student_ema: float | None = None
    """Decay of an average of the student in the second phase, which is then the result."""
    regression: Optimiser = Optimiser(lr=2e-6, clip=10)
    """The student's optimiser in the first phase."""
    student_optimiser: Optimiser = Optimiser(lr=2e-6, clip=10)
    """The student's optimiser in the second."""
    critic_optimiser: Optimiser = Optimiser(lr=2e-6, clip=10)
    """The critic's optimiser."""

    def roles(self) -> dict[str, RoleSpec]:
        student = RoleSpec(copy_of="teacher", transforms=(Causal(reach=self.reach),))
        average = {"student_ema": RoleSpec(copy_of="student", frozen=True)} if self.student_ema else {}
        return {"student": student, "critic": RoleSpec(copy_of="teacher"), **average}

    def events(self) -> Trajectory:
        """Where the second phase finds its clips."""
        return ChunkNoise(times=(*self.times, 0.0))

    def students(self) -> tuple[Loss, ...]:
        """What moves the student in the second phase."""
        return (self.score,)

    def critics(self) -> tuple[Loss, ...]:
        """What moves everybody else there."""
        return (self.critic,)

    def sampler(self) -> Sampler:
        """How the student is sampled."""
        return ChunkSampler(times=self.times, steps=len(self.times), solver=Consistency())

    def plan(self, teacher: Any) -> Plan:
        return Plan(
            phases=(*self._first(self.walk or teacher), self._second()), sampler=self.sampler(),
            result="student_ema" if self.student_ema else "student",
        )  # fmt: skip

    def _first(self, walk: Sampler) -> tuple[Phase, ...]:
        if self.ends == "data":
            return (
                self._regression(Update(trajectory=ChunkNoise(times=(*self.times, 0.0)), loss=Match(target="real"))),
            )
        if not self.routes:
            return ()
        keys = ChunkKeys(at=self.at, sampler=walk, clean=self.clean_keys)
        routes = Phase(name="routes", fit=RecordStates(count=self.routes, sampler=walk, at=self.at))
        return routes, self._regression(Update(trajectory=keys, loss=Match()))

    def _regression(self, update: Update) -> Phase:
        begin = (Copy(target="student_ema"),) if self.student_ema else ()
        return Phase(
            name="regression",
            steps=self.first,
            updates=(update,),
            optimisers={"student": self.regression},
            at_end=begin,
        )

    def _second(self) -> Phase:
        events, moved = self.events(), {role for loss in self.critics() for role in loss.moves}
        updates = [Update(trajectory=events, loss=loss, every=self.critic_updates) for loss in self.students()]
        updates += [Update(trajectory=events, loss=loss) for loss in self.critics()]
        optimisers = {role: self.critic_optimiser for role in moved} | {"student": self.student_optimiser}
        average = (EMA(decay=self.student_ema, every=self.critic_updates),) if self.student_ema else ()
        return Phase(name="matching", steps=self.steps, updates=tuple(updates), optimisers=optimisers, actions=average)
