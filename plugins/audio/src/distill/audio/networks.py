"""A compact transformer over the time of sound: latents or spectra as tokens, conditions by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from distill.audio.modality import Audio
from distill.audio.words import told
from distill.core import Builder, Denoiser, DistillError, Modality, Sampler, checkpoint
from distill.core.denoiser import ScalarEmbedding
from distill.core.errors import RecipeError
from distill.core.paths import PATHS
from distill.methods.networks import TimeEmbedding


@lru_cache(maxsize=64)
def _rotations(words: int, length: int, dim: int, device: torch.device) -> Tensor:
    """Rotary positions as complex numbers, of words before the sound and of its tokens: [words + length, dim / 2]."""
    rates = 1000.0 ** -torch.linspace(0, 1, dim // 2)
    angle = torch.arange(-words, length)[:, None] * rates
    return torch.polar(torch.ones_like(angle), angle).to(device)


def _turned(heads: Tensor, rotations: Tensor) -> Tensor:
    pairs = torch.view_as_complex(heads.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotations).flatten(-2).to(heads.dtype)


class Block(nn.Module):
    """Attention among words and tokens, and a perceptron, modulated by the time and what is said of the whole."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_qk = nn.LayerNorm(width // heads, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU("tanh"), nn.Linear(ratio * width, width))
        self.table = nn.Parameter(torch.zeros(6 * width))

    def forward(self, h: Tensor, shared: Tensor, turn: Tensor) -> Tensor:
        """Tokens [B, N, width]; shared modulation [B, 1, 6 · width]; rotary positions [N, width / heads / 2]."""
        shift, scale, gate, shift2, scale2, gate2 = (shared + self.table).chunk(6, -1)
        qkv = self.qkv(torch.addcmul(shift, self.norm(h), 1 + scale))
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (_turned(self.norm_qk(part), turn) for part in (q, k))
        h = torch.addcmul(h, self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)), gate)
        return torch.addcmul(h, self.mlp(torch.addcmul(shift2, self.norm2(h), 1 + scale2)), gate2)


def _silent(layer: nn.Linear) -> nn.Linear:
    """The layer with weights of zero: it says nothing until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Whole(nn.Module):
    """What is said of a whole sound: its label, its tempo, its seconds, and extra inputs that are added: [B, width]."""

    def __init__(self, width: int, classes: int, numbers: Mapping[str, int]) -> None:
        super().__init__()
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.numbers = nn.ModuleDict(
            {name: nn.ModuleList(ScalarEmbedding(width, 1.0) for _ in range(size)) for name, size in numbers.items()}
        )
        self.bias = nn.Linear(1, width)

    def forward(self, cond: Mapping[str, Any], x: Tensor) -> Tensor:
        said: Tensor = self.bias(x.new_ones(len(x), 1))
        said = said if self.label is None else said + self.label(cond["label"])
        for name, parts in self.numbers.items():
            values = cond[name].reshape(len(x), -1).to(x)
            for part, value in zip(cast(nn.ModuleList, parts), values.unbind(1), strict=True):
                said = said + part(value)
        return said


class AudioTransformer(nn.Module):
    """States [B, N, D] of any number of tokens that the patch divides; native times [B].

    Conditions are `label` [B], `text` [B, words, ·], `chords` [B, N or 1, 12], `tempo` [B] in hundreds of quarters a
    minute, and `seconds` [B, 2], where the sound begins and how long the whole is, in tens of seconds.
    """

    def __init__(self, options: AudioDiT, span: float) -> None:
        super().__init__()
        width, self.patch = options.width, options.patch
        size = options.channels * self.patch
        self.inlet = nn.Linear(size + 12 * self.patch * options.chords, width)
        self.time = TimeEmbedding(width, 2 / span)
        numbers = {"tempo": int(options.tempo), "seconds": 2 * options.seconds}
        self.whole = Whole(width, options.classes, {name: count for name, count in numbers.items() if count})
        self.text = nn.Linear(options.text, width) if options.text else None
        self.shared = _silent(nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(width, options.heads, options.ratio) for _ in range(options.depth))
        self.norm, self.modulation = nn.LayerNorm(width, elementwise_affine=False), _silent(nn.Linear(width, 2 * width))
        self.outlet = _silent(nn.Linear(width, size))
        self.chords, self.heads = options.chords, options.heads

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any]) -> Tensor:
        if x.shape[1] % self.patch:
            raise DistillError(f"{x.shape[1]} tokens cannot be cut into patches of {self.patch}")
        seen = torch.cat([x, cond["chords"].to(x).expand(-1, x.shape[1], -1)], 2) if self.chords else x
        h = self.inlet(seen.unflatten(1, (-1, self.patch)).flatten(2))
        told = silu(self.time(t) + self.whole(cond, x))[:, None]
        words, length, shared = 0, h.shape[1], self.shared(told)
        if self.text is not None:
            h, words = torch.cat([self.text(cond["text"].to(x)), h], 1), cond["text"].shape[1]
        turn = _rotations(words, length, h.shape[2] // self.heads, h.device)
        for block in self.blocks:
            h = block(h, shared, turn)
        shift, scale = self.modulation(told).chunk(2, -1)
        out: Tensor = self.outlet(torch.addcmul(shift, self.norm(h[:, words:]), 1 + scale))
        return out.unflatten(2, (self.patch, -1)).flatten(1, 2)


class AudioDiT(Builder):
    """A transformer of our own over the tokens of a sound, by text, chords, tempo, label and seconds."""

    example: ClassVar[dict[str, Any]] = {
        "tokens": 4, "channels": 6, "width": 24, "depth": 3, "heads": 2, "classes": 3, "text": 5, "words": 2,
        "chords": True, "tempo": True, "seconds": True,
    }  # fmt: skip
    tokens: PositiveInt = 64
    """Tokens of a sound: 64 of the shipped codec are 4.1 s; the network takes any number."""
    channels: PositiveInt = 32
    """Values of a token: 32 for each channel of sound with the shipped codec."""
    patch: PositiveInt = 1
    """Tokens that the network takes as one."""
    width: PositiveInt = 192
    """Values of a token within the network."""
    depth: PositiveInt = 8
    """Blocks."""
    heads: PositiveInt = 4
    """Attention heads."""
    ratio: PositiveInt = 4
    """Hidden units of a block's perceptron per value of a token."""
    classes: NonNegativeInt = 0
    """Class labels; 0 is none. The label `classes` itself is the null condition."""
    text: NonNegativeInt = 0
    """Values of a word; 0 is without text."""
    words: PositiveInt = 8
    """Words of a text."""
    chords: bool = False
    """Take the share of each token for which each of the 12 pitch classes sounds."""
    tempo: bool = False
    """Take the tempo."""
    seconds: bool = False
    """Take where the sound begins and how long the whole is."""
    path: Literal["flow", "trigonometric", "cosine", "karras"] = "flow"
    """Forward process; `karras` comes with EDM's preconditioning."""
    kind: Literal["", "velocity", "v", "x0", "eps"] = ""
    """What the network says; x0 on the path `karras` and velocity on the others if empty."""
    sigma_data: float = 1.0
    """Standard deviation of the data, for the paths `karras` and `trigonometric`."""
    weights: str = ""
    """A safetensors file of weights."""
    steps: PositiveInt = 64
    """Steps of its own sampler."""
    guidance: float = 1.0
    """w of its own sampler."""

    def build(self) -> Denoiser:
        if self.width % (2 * self.heads):
            raise RecipeError(f"a width of {self.width} cannot be shared by {self.heads} heads of even size")
        if self.tokens % self.patch:
            raise RecipeError(f"{self.tokens} tokens cannot be cut into patches of {self.patch}")
        scaled = {"sigma_data": self.sigma_data} if self.path == "trigonometric" else {}
        path, edm = PATHS[self.path](**scaled), self.path == "karras"
        ends = path.native(torch.tensor([path.t_min, path.t_max]))
        network = AudioTransformer(self, float((ends[1] - ends[0]).abs()))
        if self.weights:
            checkpoint.fill(network, Path(self.weights), "network.")
        return Denoiser(
            network, path, self.kind or ("x0" if edm else "velocity"), shape=(self.tokens, self.channels),
            null=self._null(), sigma_data=self.sigma_data if edm else None,
            taps=(f"blocks.{self.depth // 2}", f"blocks.{self.depth - 1}"), scalar_sites=("whole",),
        )  # fmt: skip

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps, guidance=self.guidance)

    def modality(self) -> Modality:
        return Audio()

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Words as vectors; what a prompt does not say is left out."""
        if not self.text:
            return super().encode(prompts)
        null = {name: torch.as_tensor(value) for name, value in self._null().items()}
        return {name: value.expand(len(prompts), *value.shape) for name, value in null.items()} | {
            "text": told(prompts, self.words, self.text)
        }

    def _null(self) -> dict[str, Any]:
        """Value of each condition when it is dropped."""
        known = {
            "label": (self.classes, self.classes), "text": (self.text, torch.zeros(self.words, self.text)),
            "chords": (self.chords, torch.zeros(1, 12)), "tempo": (self.tempo, torch.zeros(())),
            "seconds": (self.seconds, torch.zeros(2)),
        }  # fmt: skip
        return {name: value for name, (used, value) in known.items() if used}
