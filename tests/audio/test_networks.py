"""Audio transformers: what conditions do, any length, and diffusers' networks."""

from __future__ import annotations

import pytest
import torch

from distill.audio.networks import AudioDiT
from distill.audio.words import told
from distill.audio.wrapped import LongCat, StableAudio, StableAudio3
from distill.core.errors import DistillError, RecipeError

KINDS = [AudioDiT, StableAudio, StableAudio3, LongCat]


def spoken(kind, **options):
    """The example of a denoiser, with weights drawn at random."""
    denoiser, draw = kind(**{**kind.example, **options}).build().eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in denoiser.parameters():
            scale = weight.shape[-1] ** -0.5 if weight.ndim > 1 else 0.3
            weight.copy_(torch.randn(weight.shape, generator=draw) * scale)
    return denoiser


def asked(denoiser, seed=0):
    draw = torch.Generator().manual_seed(seed)
    _, _, cond = denoiser.example(2)
    cond = {k: v if k == "label" else torch.rand(v.shape, generator=draw) for k, v in cond.items()}
    return torch.randn(2, *denoiser.shape, generator=draw), torch.tensor([0.3, 0.7]), cond


@pytest.mark.parametrize("kind", KINDS)
def test_every_condition_is_heard(kind):
    denoiser = spoken(kind)
    x, t, cond = asked(denoiser)
    said = denoiser.predict(x, t, cond).value
    for name, value in cond.items():
        other = {**cond, name: torch.zeros_like(value) if name == "label" else value + 0.5}
        assert (denoiser.predict(x, t, other).value - said).abs().max() > 1e-4, name


def test_any_length_that_the_patch_divides():
    denoiser = spoken(AudioDiT, patch=2)
    _, t, cond = asked(denoiser)
    x = torch.randn(2, 10, 6)
    said = denoiser.predict(x, t, {**cond, "chords": torch.zeros(2, 10, 12)}).value
    assert said.shape == x.shape
    with pytest.raises(DistillError, match="7 tokens cannot be cut"):
        denoiser.predict(x[:, :7], t, {**cond, "chords": torch.zeros(2, 7, 12)})


@pytest.mark.parametrize("path", ["flow", "trigonometric", "karras", "cosine"])
def test_paths_and_kinds(path):
    denoiser = spoken(AudioDiT, path=path)
    x, t, cond = asked(denoiser)
    assert denoiser.predict(x, t, cond).x0.isfinite().all()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(RecipeError, match="heads of even size"):
        AudioDiT(width=30, heads=4).build()
    with pytest.raises(RecipeError, match="patches of 3"):
        AudioDiT(tokens=64, patch=3).build()


def test_prompts_become_words_and_leave_the_rest_out():
    builder = AudioDiT(**AudioDiT.example)
    cond = builder.encode(["organ, slow", "choir"])
    assert torch.equal(cond["text"], told(["Organ slow", "choir"], 2, 5)) and not cond["text"][1, 1].any()
    assert cond["label"].tolist() == [3, 3] and not cond["chords"].any()
    with pytest.raises(RecipeError, match="reads no prompts"):
        AudioDiT().encode(["organ"])


def test_a_network_that_is_not_there_is_told():
    with pytest.raises(DistillError, match="StableAudioProjectionModel cannot be had from"):
        StableAudio(model="/nowhere").build()
    with pytest.raises(DistillError, match="cannot be had from this config"):
        LongCat(config={"nothing": 1}).build()


def test_longcat_runs_from_noise_to_data():
    denoiser = spoken(LongCat)
    x, t, cond = asked(denoiser)
    direct = denoiser.network.net(x, cond["text"], cond["text"].abs().sum(2) > 0, 1 - t).sample
    assert torch.allclose(denoiser.predict(x, t, cond).velocity, -direct, atol=1e-5)


def test_saved_pipelines_are_read(tmp_path):
    made = spoken(StableAudio)
    made.network.net.save_pretrained(tmp_path / "transformer")
    made.network.parts["projection"].save_pretrained(tmp_path / "projection_model")
    again = StableAudio(model=str(tmp_path), tokens=6, words=3).build().eval()
    x, t, cond = asked(made)
    assert torch.equal(again.predict(x, t, cond).value, made.predict(x, t, cond).value)
