import pytest
import torch
from torch.nn.functional import cosine_similarity

from distill.core import Batch, Context, Rng, Role, Roles, Sampler, Samples, assemble
from distill.core.errors import RecipeError
from distill.image.super_resolution.losses import FrequencyAlignment, bands
from distill.image.super_resolution.networks import RestorerDenoiser
from distill.image.super_resolution.papers.framer import Framer
from distill.methods.toys import train
from distill.methods.trajectories import NoisedData

LOSS = FrequencyAlignment(ramp=0)


def student():
    torch.manual_seed(0)
    denoiser = RestorerDenoiser(width=8, blocks=3, size=16).build()
    denoiser.taps = ("blocks.0", "blocks.1", "blocks.2")
    torch.nn.init.normal_(denoiser.network.outlet.weight, std=0.1)
    return Role("student", denoiser)


def data(size=8):
    return Samples(x=0.1 * Rng(1).normal(size, 3, 16, 16), low=Rng(2).uniform(size, 3, 16, 16))


def maps(size=4):
    torch.manual_seed(1)
    shared = torch.randn(size, 5, 8, 8)
    return [(shared + torch.randn(size, 5, 8, 8)).requires_grad_() for _ in range(3)]


def by_hand(mine, other, last, n, inter):
    """One layer's term in one band for picture n, with weights of the band's spectrum."""
    near = cosine_similarity(mine[n].flatten(), last[n].flatten(), dim=0)
    below = near.exp() + cosine_similarity(mine[n].flatten(), other[n].flatten(), dim=0).exp()
    rest = [cosine_similarity(mine[n].flatten(), last[k].flatten(), dim=0).exp() for k in range(len(last)) if k != n]
    size, wanted = (torch.fft.fft2(each[n]).abs().mean() for each in (mine, last))
    weight = near.relu() / (1 + (size - wanted).abs() / wanted)
    return weight * -(near.exp() / (below + sum(rest) if inter else below)).log()


def test_the_sum_is_that_of_the_paper():
    first, second, last = (each.detach() for each in maps())
    found = LOSS.aligned([first, second], last, [1, 0])
    (a, x), (b, y), (c, z) = (bands(each) for each in (first, second, last))
    pairs = [(a, b, c, False), (b, a, c, False), (x, y, z, True), (y, x, z, True)]
    wanted = [sum(by_hand(mine, other, over, n, inter) for mine, other, over, inter in pairs) for n in range(4)]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_the_last_layer_teaches_and_is_not_moved():
    first, second, last = maps()
    LOSS.aligned([first, second], last, [1, 0]).sum().backward()
    assert last.grad is None and first.grad.abs().sum() > 0


@pytest.mark.parametrize("gated", [True, False])
def test_only_a_gate_leaves_a_layer_alone_that_is_against_the_last_one(gated):
    first, second, last = (each.detach() for each in maps())
    against = (-last).requires_grad_()
    FrequencyAlignment(gated=gated).aligned([against, against.detach()], last, [1, 0]).sum().backward()
    assert bool(against.grad.abs().sum() > 0) != gated


def test_alone_in_a_batch_nothing_is_contrasted_with_other_pictures():
    spectra = torch.fft.fft2(torch.stack(maps(1)))[..., :4, 0]
    one, many = (LOSS._band(spectra, [1, 0], inter=inter) for inter in (False, True))
    torch.testing.assert_close(one, many)


def test_two_taps_are_too_few():
    role = student()
    role.denoiser.taps = ("blocks.0", "blocks.2")
    ctx = Context(assemble(Framer(), {"student": role}), Rng(0))
    cond = {"low": torch.zeros(2, 3, 16, 16)}
    event = next(iter(NoisedData(tapped=True).events(Batch(2, torch.zeros(2, 3, 16, 16), cond), ctx, attached=True)))
    with pytest.raises(RecipeError, match="three or more"):
        LOSS.terms(event, ctx)


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_training_leaves_a_network_without_heads(weight):
    method = Framer(steps=3, alignment=FrequencyAlignment(weight=weight))
    engine = train(method, Roles({"student": student()}), data=data(), size=4)
    result, known = engine.roles[method.plan(Sampler()).result], student().tensors()
    assert set(result.tensors()) == set(known) and ("heads" in engine.roles) == bool(weight)
    assert any(not torch.equal(value, known[name]) for name, value in engine.roles["student"].tensors().items())
