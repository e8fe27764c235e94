"""Denoisers: preconditioning, taps, extra inputs, caches, and times in every form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distill.core import Cache, Denoiser
from distill.core.errors import DistillError
from distill.core.paths import Flow, Joint, Karras


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.time, self.body = nn.Linear(1, 4), nn.Linear(2, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x, t, cond):
        return self.out(torch.tanh(self.body(x) + self.time(t[:, None].to(x.dtype))))


def denoiser(path=None, **options):
    torch.manual_seed(0)
    options = {"shape": (2,), "taps": ("body",), "scalar_sites": ("time",), **options}
    return Denoiser(Net(), path or Flow(), options.pop("kind", "x0"), **options)


X = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))


def test_the_network_is_fed_native_times_and_what_it_says_is_kept():
    said = denoiser(kind="eps").predict(X, 0.25)
    assert said.t.tolist() == [0.25] * 3 and said.kind == "eps"
    expected = denoiser().network(X, torch.full((3,), 250.0), {})
    torch.testing.assert_close(said.value, expected)


@pytest.mark.parametrize("t", [0.5, torch.tensor(0.5), torch.full((3,), 0.5)], ids=["number", "scalar", "vector"])
def test_a_time_may_be_a_number_or_one_per_sample(t):
    torch.testing.assert_close(denoiser().predict(X, t).x0, denoiser().predict(X, 0.5).x0)


def test_edm_preconditioning_is_that_of_the_paper():
    d, sigma = 0.5, torch.tensor([0.01, 1.0, 50.0])
    said = denoiser(Karras(), sigma_data=d).predict(X, sigma).x0
    c_in, s = 1 / (sigma**2 + d**2).sqrt()[:, None], sigma[:, None]
    inner = denoiser().network(c_in * X, sigma.log() / 4, {})
    expected = d**2 / (s**2 + d**2) * X + s * d / (s**2 + d**2).sqrt() * inner
    torch.testing.assert_close(said, expected)


def test_taps_return_features_with_gradient_and_leave_no_hook():
    net = denoiser()
    said = net.predict(X, 0.5, taps=("body", "out"))
    assert set(said.features) == {"body", "out"} and said.features["body"].requires_grad
    assert not net.network.body._forward_hooks and not net.predict(X, 0.5).features


def test_hooks_go_even_when_the_network_fails():
    net = denoiser()
    with pytest.raises(RuntimeError):
        net.predict(torch.zeros(3, 7), 0.5, taps=("body",))
    assert not net.network.body._forward_hooks


def test_an_unknown_tap_kind_or_scalar_names_what_there_is():
    with pytest.raises(DistillError, match="body"):
        denoiser().predict(X, 0.5, taps=("boddy",))
    with pytest.raises(DistillError, match="velocity"):
        denoiser(kind="noise")
    with pytest.raises(DistillError, match="scalar-input"):
        denoiser().predict(X, 0.5, w=torch.ones(3))
    with pytest.raises(DistillError, match="scalar_sites"):
        denoiser(scalar_sites=()).add_scalar("w")


def test_an_extra_input_changes_nothing_until_it_is_trained():
    net = denoiser()
    plain = net.predict(X, 0.5).x0
    net.add_scalar("w")
    torch.testing.assert_close(net.predict(X, 0.5, w=torch.ones(3)).x0, plain, rtol=0, atol=0)
    nn.init.normal_(net.scalars["w"].out.weight)
    a, b = (net.predict(X, 0.5, w=torch.full((3,), w)).x0 for w in (1.0, 2.0))
    assert not torch.allclose(a, b)
    assert not net.network.time._forward_hooks


class Attend(nn.Module):
    def forward(self, x, t, cond, cache):
        return x + len(cache), cache.commit({"layer": (x[:, None, None], x[:, None, None])})


def test_a_cache_goes_in_and_comes_back_grown():
    net = Denoiser(Attend(), Flow(), "x0", shape=(2,))
    said = net.predict(X, 0.5, cache=Cache())
    assert len(said.cache) == 1
    assert torch.equal(net.predict(X, 0.5, cache=said.cache).x0, X + 1) and len(said.cache) == 1


def test_examples_have_the_declared_shapes():
    net = denoiser(shape={"a": (2, 3), "b": {"c": (4,)}}, null={"label": 7})
    x, t, cond = net.example(5)
    assert x["a"].shape == (5, 2, 3) and x["b"]["c"].shape == (5, 4) and cond["label"].tolist() == [7] * 5
    with pytest.raises(DistillError, match="shape"):
        denoiser(shape=None).example()


def test_times_of_a_joint_state_may_be_numbers():
    class Both(nn.Module):
        def forward(self, x, t, cond):
            return {key: x[key] * 0 + t[key][:, None] for key in x}

    net = Denoiser(Both(), Joint(paths={"a": Flow(), "b": Karras()}), "x0")
    said = net.predict({"a": X, "b": X}, {"a": 0.5, "b": torch.tensor([1.0, 2.0, 3.0])})
    assert said.x0["a"][0, 0] == 500 and said.eps["b"].shape == X.shape


def test_half_precision_states_keep_exact_times_and_their_dtype():
    net = denoiser().to(torch.bfloat16)
    said = net.predict(X.bfloat16(), 0.999)
    assert said.t[0] == pytest.approx(0.999, abs=1e-6)
    assert {said.x0.dtype, said.eps.dtype, said.velocity.dtype} == {torch.bfloat16}
