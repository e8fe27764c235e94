"""What `distill reproduce sniff` measures, with a teacher that it trains first."""

from __future__ import annotations

from functools import partial

import torch

from distill.core import Claim, Engine, Rng, Role, Row, Sampler, assemble, batches
from distill.methods.papers.denoising import Denoising
from smell.nose import Nose
from smell.odours import ODOURS, ChannelDistance, Odours
from smell.sniff import Fingerprint, Sniff

TEACHER = Sampler(steps=16)
AT_ONE = "0.2 x the teacher's at 1 call"
BROKEN = "pairs of unequal noises: distance 0.184 (bound 0.0136) and angle 0.0063 (bound 0.0027) at seed 0"


def train(method, fixed, data, seed):  # type: ignore[no-untyped-def]
    """Run a method to its end."""
    roles = assemble(method, fixed)
    source = partial(_source, data, seed)
    return Engine(roles, method.plan(TEACHER), source, seed=seed).run()


def _source(data, seed, start):  # type: ignore[no-untyped-def]
    return batches(data, 128, seed=seed, start=start)


def claim(seed: int) -> Claim:
    """One call of the student against one and sixteen of the teacher; with the fingerprint and without."""
    torch.manual_seed(seed)
    data = Odours(seed=seed).open()
    fitted = train(Denoising(steps=1000, lr=3e-3, decay=0.99), {"student": Role("student", Nose().build())}, data, seed)
    teacher = Role("teacher", fitted.roles["student_ema"].module)
    label, rng = torch.arange(2000) % len(ODOURS), Rng(seed + 1)
    noise, real = rng.normal(2000, 16), Odours(size=2000, seed=seed).open("test").tensors["x"]
    metric, angle = ChannelDistance(), Fingerprint()

    def measured(role: Role, sampler: Sampler) -> tuple[float, float]:
        x, true = (sampler.sample(r, noise, {"label": label}) for r, sampler in ((role, sampler), (teacher, TEACHER)))
        said = torch.cosine_similarity((x + 1) / 2, (true + 1) / 2, dim=1)
        return metric.measure(x, real), float((1 - said).mean())

    methods = Sniff(steps=300), Sniff(steps=300, fingerprint=angle.model_copy(update={"weight": 0.0}))
    ours, bare = (train(method, {"teacher": teacher}, data, seed) for method in methods)
    distance, turned = measured(ours.roles["student"], ours.sampler)
    teacher_one, teacher_turned = measured(teacher, TEACHER.with_steps(1))
    return Claim(
        "sniff",
        "A student of one call reads as the teacher of sixteen calls does.",
        [
            Row("channel distance to data, 1 call", distance, "<=", 0.2 * teacher_one, AT_ONE),
            Row("angle to the teacher's reading", turned, "<=", 0.2 * teacher_turned, AT_ONE),
            Row(
                "angle, with the fingerprint", turned, "<=", measured(bare.roles["student"], bare.sampler)[1],
                "without it, same seed and budget",
            ),
        ],
        broken=BROKEN,
        settings={"seed": seed, "steps": 300, "data": "odours", "network": "nose, 128 units"},
    )  # fmt: skip
