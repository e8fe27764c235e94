"""ADD on Digits-8: adversarial term and teacher's target together, against each alone."""

from __future__ import annotations

import copy
from typing import Any

from distill.core import Claim, Engine, Optimiser, Row
from distill.methods import digits, toys
from distill.methods.losses import AdversarialGenerator, TeacherTarget
from distill.methods.networks import ProjectionHeads
from distill.methods.papers.add import ADD

STEPS = 1000
OPEN = (
    "That both terms are better than the GAN alone by a third: the ratio of dFID is 0.57, 0.72, 0.81, 0.74 and 0.95 "
    "on seeds 0 to 4. The weight of the target was chosen on seeds 0 to 2 among 1, 2, 4 and 8."
)
BOTH = TeacherTarget(weight=8)
NO_GAN: dict[str, Any] = {"generator": AdversarialGenerator(weight=0)}
NO_TARGET: dict[str, Any] = {"target": TeacherTarget(weight=0)}


def run(seed: int, **options: Any) -> Engine:
    """Train on the digits, with the features of a classifier that does not judge the result."""
    method = ADD(
        steps=STEPS,
        times=(1.0,),
        heads=ProjectionHeads(features="features", timed=False, condition="label", hidden=32),
        student_optimiser=Optimiser(lr=5e-4, betas=(0, 0.99), schedule="cosine"),
        heads_optimiser=Optimiser(lr=1e-3, betas=(0, 0.99)),
    ).model_copy(update={"target": BOTH, **options})
    fixed = {
        "teacher": copy.deepcopy(digits.teacher(seed, steps=2000)),
        "features": digits.classifier(seed + 50),
    }
    return toys.train(method, fixed, data=digits.samples(), size=64, seed=seed)


def leak(engine: Engine) -> float:
    """Largest change of the student's answer at its last time when the data are replaced."""
    trajectory: Any = engine.plan.phases[0].updates[0].trajectory
    only = trajectory.model_copy(update={"times": trajectory.times.model_copy(update={"times": (1.0,)})})
    answers = []
    for scale in (0.0, 1.0):
        batch: Any = next(engine.data(0))
        ctx = copy.copy(engine.ctx)
        ctx.rng = engine.ctx.rng.fork("leak")
        seen = only.events(type(batch)(batch.size, scale * batch.x, batch.cond, batch.shape), ctx, attached=False)
        answers.append(next(iter(seen)).x)
    return float((answers[0] - answers[1]).abs().max())


def claim(seed: int) -> Claim:
    """Both terms against each alone, in one step."""
    judge = digits.classifier(seed)
    runs = {"both": run(seed), "target": run(seed, **NO_GAN), "gan": run(seed, **NO_TARGET)}
    scores = {
        name: digits.measure(engine.roles["student"], engine.sampler, judge, seed) for name, engine in runs.items()
    }
    dfid = {name: score.dfid for name, score in scores.items()}
    return Claim(
        "add",
        "An adversarial term and a teacher's target together beat each alone in one step.",
        (
            Row("dFID over the target's alone", dfid["both"] / dfid["target"], "<=", 0.6, f"{dfid['target']:.1f}"),
            Row("dFID over the GAN's alone", dfid["both"] / dfid["gan"], "<=", 1.0, f"{dfid['gan']:.1f}"),
            Row(
                "recall of both terms",
                scores["both"].recall,
                ">=",
                2 * scores["target"].recall,
                "2 x target alone",
            ),
            Row("accuracy of the labels, both terms", scores["both"].accuracy, ">=", 0.95),
            Row("trace of the data at the last time", leak(runs["both"]), "<=", 1e-6),
        ),
        broken=(
            "Seed 0. Sign of the student's hinge flipped: dFID 2,625, accuracy 0.12. Heads never trained: dFID 82, "
            "recall 0.007. Sign of the target flipped: the gradient became infinite at step 229 and the run stopped."
        ),
        settings={
            "seed": seed,
            "steps": STEPS,
            "world": "Digits-8: 1,797 digits of scikit-learn; perceptrons 4 x 256, flow path",
            "features": "a classifier that is not the one behind dFID and recall",
            "training": "batch 64, Adam with first moment 0, rates 5e-4 (student) and 1e-3 (heads)",
            "target weight": BOTH.weight,
        },
        open=OPEN,
    )
