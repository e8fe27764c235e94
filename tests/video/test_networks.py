"""Video denoisers: shapes, times and conditions; what diffusers' own networks say; input that does not fit."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed

from distill.core import DistillError, Role, Roles
from distill.core.errors import RecipeError
from distill.video.attention import Reach, Rotary, turned
from distill.video.networks import Causal, VideoDiT
from distill.video.wrapped import LTX, CogVideoX, Wan


def bidirectional(denoiser):
    denoiser.network.reach = Reach()
    return denoiser


@torch.no_grad()
def test_one_time_for_all_frames_is_that_time_for_each(name, spoken, clip):
    denoiser = bidirectional(spoken(name))
    whole = clip(denoiser, 4)
    t = torch.tensor([0.3, 0.8])
    each = denoiser.predict(whole.x, t[:, None].expand(-1, 4), whole.cond).value
    torch.testing.assert_close(denoiser.predict(whole.x, t, whole.cond).value, each, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_frame_sees_every_other_in_bidirectional_form(name, spoken, clip):
    denoiser = bidirectional(spoken(name))
    whole = clip(denoiser, 4)
    before = denoiser.predict(whole.x, whole.t, whole.cond).value
    whole.x[:, 3] += 1
    change = (denoiser.predict(whole.x, whole.t, whole.cond).value - before).abs().amax((0, 2, 3, 4))
    assert change.min() > 0


@torch.no_grad()
def test_each_condition_is_heard(name, spoken, clip):
    denoiser = bidirectional(spoken(name))
    whole = clip(denoiser, 4)
    before = denoiser.predict(whole.x, whole.t, whole.cond).value
    for said in whole.cond:
        other = {**whole.cond, said: whole.cond[said] - 1}
        assert (denoiser.predict(whole.x, whole.t, other).value - before).abs().max() > 1e-4


@torch.no_grad()
def test_sound_of_a_frame_moves_that_frame_first(spoken, clip):
    denoiser = spoken("video-dit")
    denoiser.network.reach = Reach(chunk=1)
    whole = clip(denoiser, 4)
    before = denoiser.predict(whole.x, whole.t, whole.cond).value
    whole.cond["audio"][:, 2] += 1
    change = (denoiser.predict(whole.x, whole.t, whole.cond).value - before).abs().amax((0, 2, 3, 4))
    assert change[:2].max() == 0 and change[2:].min() > 0


def test_copies_do_not_share_the_call_under_way(name, spoken, clip):
    denoiser = bidirectional(spoken(name))
    twin = copy.deepcopy(denoiser)
    for weight in twin.parameters():
        weight.data.mul_(0.5)
    whole = clip(denoiser, 4)
    said = [each.predict(whole.x, whole.t, whole.cond).value for each in (denoiser, twin, denoiser)]
    assert torch.equal(said[0], said[2]) and not torch.equal(said[0], said[1])


def test_a_transform_makes_a_copy_causal_and_leaves_the_teacher_alone(name, spoken, clip):
    roles = Roles({role: Role(role, copy.deepcopy(bidirectional(spoken(name)))) for role in ("teacher", "student")})
    Causal(reach=Reach(chunk=2)).apply(roles, "student")
    whole = clip(roles["teacher"].denoiser, 4)
    moved = whole.x.clone()
    moved[:, 3] += 1
    changes = {
        role: (roles[role].ask(moved, whole.t, whole.cond).value - roles[role].ask(whole.x, whole.t, whole.cond).value)
        for role in roles
    }
    assert changes["student"][:, :2].abs().max() == 0 and changes["teacher"][:, :2].abs().max() > 0


def test_gradient_reaches_every_weight_in_both_forms(name, spoken, clip):
    denoiser = copy.deepcopy(spoken(name)).requires_grad_(True)
    whole = clip(denoiser, 4)
    for reach in (Reach(), Reach(chunk=2, window=2, sink=1)):
        denoiser.network.reach = reach
        denoiser.zero_grad()
        denoiser.predict(whole.x, whole.t, whole.cond).value.square().mean().backward()
        silent = [n for n, weight in denoiser.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert [n for n in silent if "label" not in n and "time" not in n] == []


# ---------------------------------------------------------------- diffusers


def _wan(net, x, t, text):
    return net(x.transpose(1, 2), t, text, return_dict=False)[0].transpose(1, 2)


def _ltx(net, x, t, text):
    batch, frames, channels, high, wide = x.shape
    tokens = x.permute(0, 1, 3, 4, 2).reshape(batch, -1, channels)
    size = {"num_frames": frames, "height": high, "width": wide, "rope_interpolation_scale": (8 / 25, 32, 32)}
    said = net(tokens, text, t[:, None], None, **size, return_dict=False)[0]
    return said.view(batch, frames, high, wide, channels).permute(0, 1, 4, 2, 3)


def _cog(net, x, t, text):
    grid = (x.shape[3] // 2, x.shape[4] // 2)
    rope = get_3d_rotary_pos_embed(net.config.attention_head_dim, ((0, 0), grid), grid, x.shape[1])
    return net(x, text, t, image_rotary_emb=rope, return_dict=False)[0]


ASKED = {"wan": (Wan, _wan), "ltx-video": (LTX, _ltx), "cogvideox": (CogVideoX, _cog)}


@pytest.mark.parametrize("kind", ASKED)
@torch.no_grad()
def test_it_says_what_diffusers_says(kind, spoken, clip):
    builder, ask = ASKED[kind]
    denoiser = bidirectional(spoken(kind))
    net = getattr(diffusers, builder.network_class)(**builder.example["config"]).eval()
    net.load_state_dict(denoiser.network.net.state_dict())
    whole, t = clip(denoiser, 4), torch.tensor([0.3, 0.8])
    said = denoiser.predict(whole.x, t, whole.cond).value
    torch.testing.assert_close(said, ask(net, whole.x, denoiser.path.native(t), whole.cond["text"]))


def test_weights_that_diffusers_saved_are_read(tmp_path, spoken, clip):
    denoiser = bidirectional(spoken("wan"))
    denoiser.network.net.save_pretrained(tmp_path / "transformer")
    again = Wan(model=str(tmp_path), **{k: v for k, v in Wan.example.items() if k != "config"}).build()
    whole = clip(denoiser, 4)
    said = (each.predict(whole.x, whole.t, whole.cond).value for each in (denoiser, again))
    torch.testing.assert_close(*said)


# ---------------------------------------------------------------- positions and patches


def test_rotary_products_depend_on_distances_only():
    rotary, draw = Rotary(12), torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 12, generator=draw)
    near, far = (rotary.table(frames, (1, 1), q.device) for frames in ((2, 5), (1002, 1005)))
    products = [turned(q, table[0]) @ turned(k, table[1]) for table in (near, far)]
    torch.testing.assert_close(*products, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("patch", [(1, 4, 4), (2, 2, 4), (1, 8, 8)])
def test_patches_come_back_where_they_were(patch):
    network = VideoDiT(frames=4, channels=3, size=(8, 8), patch=patch, width=24, heads=2, depth=1).build().network
    x = torch.randn(2, 4, 3, 8, 8)
    tokens, grid = network._patches(x)
    assert torch.equal(network._frames(tokens, grid), x)


def test_any_number_and_size_of_frames_that_the_patch_divides():
    denoiser = VideoDiT(frames=4, size=(8, 8), width=24, heads=2, depth=1).build()
    assert denoiser.predict(torch.zeros(1, 7, 1, 12, 16), 0.5).value.shape == (1, 7, 1, 12, 16)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": (30, 32)}, "patches of 4 x 4: the nearest size is 32 x 32"),
        ({"frames": 5, "patch": (2, 4, 4)}, "clips of 5 frames cannot be cut into patches of 2 frames"),
        ({"width": 30}, "4 heads cannot share a width of 30"),
        ({"patch": (2, 4, 4), "reach": {"chunk": 3}}, "chunk 3 is no multiple of that"),
        ({"width": 16, "heads": 4}, "cannot be shared among three axes"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options, said):
    with pytest.raises(DistillError, match=said):
        VideoDiT(**options).build()


def test_states_that_do_not_fit_are_named():
    denoiser = VideoDiT(frames=4, size=(8, 8), width=24, heads=2, depth=1, audio=3).build()
    with pytest.raises(DistillError, match="frames of 8 x 6 pixels .* nearest size is 8 x 8"):
        denoiser.predict(torch.zeros(1, 4, 1, 8, 6), 0.5, {"audio": torch.zeros(1, 3)})
    with pytest.raises(DistillError, match="a clip of 4 frames with 3 channels"):
        denoiser.predict(torch.zeros(1, 4, 3, 8, 8), 0.5, {"audio": torch.zeros(1, 3)})
    with pytest.raises(DistillError, match="has 3 frames, and the clip has 4"):
        denoiser.predict(torch.zeros(1, 4, 1, 8, 8), 0.5, {"audio": torch.zeros(1, 3, 3)})


def test_a_network_without_frames_cannot_become_causal():
    from distill.core import Mixture
    from distill.core.paths import Flow

    roles = Roles({"student": Role("student", Mixture(torch.zeros(1, 2), 0.1, Flow()))})
    with pytest.raises(RecipeError, match="does not say which frames see each other"):
        Causal(reach=Reach(chunk=2)).apply(roles, "student")


def test_a_config_that_diffusers_refuses_is_named():
    with pytest.raises(DistillError, match="WanTransformer3DModel cannot be had from this config"):
        Wan(config={"heads": 3}).build()
