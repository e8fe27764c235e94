import pytest
import torch

from distill.core import Role, Roles
from distill.image.networks import DiT, UNet2D
from distill.image.super_resolution.conditioning import LowAdapter
from distill.image.super_resolution.networks import RestorerDenoiser

SMALL = RestorerDenoiser(width=8, blocks=2, size=16)


def spoilt(denoiser):
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return denoiser


def test_a_new_network_says_bicubic_of_noise_and_itself_of_data():
    denoiser, x = SMALL.build(), torch.randn(2, 3, 16, 16)
    far, near = (denoiser.predict(x, t, {"low": torch.randn_like(x)}).x0 for t in (1.0, 0.0))
    assert far.abs().max() < 0.01 and torch.allclose(near, x, atol=1e-5)


def test_the_network_gets_and_says_values_of_variance_one():
    denoiser, t = SMALL.build(), torch.full((64,), 0.5)
    path, x0, noise = denoiser.path, SMALL.sigma_data * torch.randn(64, 3, 16, 16), torch.randn(64, 3, 16, 16)
    x_t, seen = path.noised(x0, noise, t), []
    denoiser.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    plain = denoiser.predict(x_t, t, {"low": torch.zeros_like(x_t)}).x0
    alpha, sigma = path.alpha(t[0]), path.sigma(t[0])
    scale = sigma * SMALL.sigma_data / ((alpha * SMALL.sigma_data) ** 2 + sigma**2).sqrt()
    assert abs(seen[0].std() - 1) < 0.02 and abs(((x0 - plain) / scale).std() - 1) < 0.02


def test_it_takes_any_size_and_looks_at_the_low_resolution_picture():
    denoiser, x = spoilt(SMALL.build()), torch.randn(1, 3, 13, 22)
    one, other = (denoiser.predict(x, 0.5, {"low": torch.full_like(x, value)}).x0 for value in (0.0, 1.0))
    assert one.shape == x.shape and not torch.allclose(one, other)
    assert torch.allclose(one, denoiser.predict(x, 0.5, {"low": torch.zeros(3, 1, 1)[None]}).x0)


def test_guidance_drops_the_low_resolution_picture():
    role, x = Role("teacher", spoilt(SMALL.build())), torch.randn(2, 3, 16, 16)
    dropped = role.denoiser.drop({"low": x}, frozenset({"*"}), x)
    assert torch.equal(dropped["low"], torch.zeros_like(x))


def adapted(builder, **options):
    torch.manual_seed(0)
    base = spoilt(builder.build())
    roles = Roles({"teacher": Role("teacher", base, frozen=True), "student": Role("student", base)})
    LowAdapter(width=8, **options).apply(roles, "student")
    return roles


LABELS = {"label": torch.tensor([1, 2])}
NETWORKS = [
    (RestorerDenoiser(width=8, blocks=2, size=16, given=0), {}, {}),
    (UNet2D(**UNet2D.example), {"channels": 1}, LABELS),
    (DiT(**DiT.example), {"channels": 1}, LABELS),
]


@pytest.mark.parametrize(("builder", "options", "cond"), NETWORKS)
def test_an_adapter_changes_nothing_until_it_is_trained(builder, options, cond):
    roles = adapted(builder, **options)
    x = torch.randn(2, *roles["student"].denoiser.shape)
    said = [roles[name].predict(x, 0.5, {**cond, "low": x}).value for name in ("teacher", "student")]
    assert torch.equal(*said)


@pytest.mark.parametrize(("builder", "options", "cond"), NETWORKS)
def test_a_trained_adapter_moves_its_role_alone(builder, options, cond):
    roles = adapted(builder, **options)
    x = torch.randn(2, *roles["student"].denoiser.shape)
    before = roles["teacher"].predict(x, 0.5, {**cond, "low": x}).value
    for parameter in roles["student"].parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    said = [roles[name].predict(x, 0.5, {**cond, "low": x}).value for name in ("teacher", "student")]
    assert torch.equal(said[0], before) and not torch.allclose(said[1], before)
    said[1].square().sum().backward()
    assert all(p.grad is not None for p in roles["student"].parameters())
