"""DMD on Ring-8: score difference and pairs, against SDS and against the pairs alone."""

from __future__ import annotations

from typing import Any

from distill.core import Claim, Engine, Plan, Row, Sampler
from distill.core.sampling import Grid, Heun
from distill.methods import ring8
from distill.methods.losses import distance
from distill.methods.papers.dmd import DMD

PAIRS = {"pairs": 256, "pair_sampler": Sampler(steps=18, grid=Grid(spacing="karras", end=0.0), solver=Heun())}


class PairsOnly(DMD):
    """DMD with its score difference switched off."""

    def plan(self, teacher: Any) -> Plan:
        make, train = super().plan(teacher).phases
        return Plan(phases=(make, train.model_copy(update={"updates": train.updates[1:]})))


def pair_error(engine: Engine, name: str) -> float:
    """Mean squared error of a role on the stored pairs."""
    kept = engine.ctx.state
    said = engine.roles[name].ask(ring8.ONE_STEP * kept["pairs/noise"], ring8.ONE_STEP).x0
    return float(distance("l2", said, kept["pairs/end"]).mean())


def claim(seed: int) -> Claim:
    """One step of DMD against SDS and against regression alone, with equal seeds, starts and budgets."""
    law, init = ring8.teacher(), ring8.start(seed)
    same = {"time": ring8.ONE_STEP, "steps": 1000, **ring8.OPTIMISERS, **ring8.LOSSES}
    sds = same | {"score": ring8.LOSSES["score"].model_copy(update={"critic": ""})}
    full, pairs = (ring8.fit(kind(**same, **PAIRS), law, init, seed=seed) for kind in (DMD, PairsOnly))
    blind = ring8.fit(DMD(**sds, pairs=0), law, init, seed=seed)
    scores = [ring8.measures(e.roles["student"], full.sampler, seed) for e in (full, blind, pairs)]
    before = float(distance("l2", _raw(pairs, init), pairs.ctx.state["pairs/end"]).mean())
    return Claim(
        "dmd",
        "One step of a student trained by a score difference and stored pairs matches its teacher's law.",
        (
            Row("energy distance of DMD", scores[0]["ed"], "<=", 0.01),
            Row("modes of 8 that DMD covers", scores[0]["modes"], ">=", 8),
            Row(
                "energy distance of SDS",
                scores[1]["ed"],
                ">=",
                0.03,
                "no critic: the sample stands for its score",
            ),
            Row(
                "error on pairs, regression only",
                pair_error(pairs, "student"),
                "<=",
                0.5 * before,
                "before training",
            ),
            Row("modes with regression only", scores[2]["modes"], "<=", scores[0]["modes"], "DMD"),
        ),
        broken=(
            "Seed 0. Sign of the score difference flipped: samples at radius 460,000 after 600 steps, "
            "energy distance 9e5. Critic never trained: energy distance 0.65, 1 mode of 8. SDS, measured "
            "in each run: 0.42."
        ),
        settings=ring8.SETTINGS | {"seed": seed, "steps": 1000, "pairs": "256, 18 steps of Heun"},
    )


def _raw(engine: Engine, init: Any) -> Any:
    return init.predict(ring8.ONE_STEP * engine.ctx.state["pairs/noise"], ring8.ONE_STEP).x0.detach()
