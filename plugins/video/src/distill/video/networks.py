"""A compact video transformer: 3-D patches, rotary positions, a time for every frame, conditions by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from distill.core import Builder, Cache, Denoiser, DistillError, Roles, Sampler, Transform, checkpoint
from distill.core.errors import RecipeError
from distill.core.paths import PATHS
from distill.methods.networks import TimeEmbedding
from distill.video.attention import FRAMED, Pass, Reach, Rotary, framed_as, grid_of, turned, with_deferred
from distill.video.streaming import ChunkSampler
from distill.video.texts import said


class Still(nn.Module):
    """What one vector says of a whole clip: its label, and extra scalars that are added to the outcome. [B, width]"""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.bias = nn.Linear(1, width)

    def forward(self, cond: Mapping[str, Any], x: Tensor) -> Tensor:
        said: Tensor = self.bias(x.new_ones(len(x), 1))
        return said if self.label is None else said + self.label(cond["label"])


class Block(nn.Module):
    """Attention over what a frame sees, attention to text, and a perceptron, modulated by what each frame is told."""

    def __init__(self, name: str, width: int, heads: int, ratio: int, text: bool) -> None:
        super().__init__()
        self.name, self.heads = name, heads
        self.norm, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm_qk = nn.LayerNorm(width // heads, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU("tanh"), nn.Linear(ratio * width, width))
        self.modulation = _silent(nn.Linear(width, 6 * width))
        if text:
            self.norm_text = nn.LayerNorm(width)
            self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
            self.said = _silent(nn.Linear(width, width))

    def forward(self, h: Tensor, told: Tensor, call: Pass, rope: Rotary, text: Tensor | None, last: bool) -> Tensor:
        """Tokens [B, N, width], told [B, F or 1, 1, 6 · width]; the last block leaves the deferred frames behind."""
        shift, scale, gate, shift2, scale2, gate2 = told.chunk(6, -1)
        size, turn = call.tokens, rope.table(call.frames, call.grid, h.device)
        heads = self._heads(self.qkv(_plus(shift, self.norm(h), scale, size)), 3)
        (q, k), v = turned(self.norm_qk(heads[:2]), turn), heads[2]
        if last and call.deferred:
            h, q = h[:, call.deferred :], q[:, :, call.deferred :]
            gate, shift2, scale2, gate2 = (_late(part, call) for part in (gate, shift2, scale2, gate2))
        seen = call.attend(self.name, q, k, v, rope.move, fresh=last)
        h = _plus(h, self.out(seen.transpose(1, 2).flatten(2)), gate, size)
        if text is not None:
            key, value = call.once(self.name, text, self._text)
            asked = self._heads(self.query(self.norm_text(h)), 1)[0]
            h = h + self.said(scaled_dot_product_attention(asked, key, value).transpose(1, 2).flatten(2))
        return _plus(h, self.mlp(_plus(shift2, self.norm2(h), scale2, size)), gate2, size)

    def _heads(self, x: Tensor, parts: int) -> Tensor:
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _text(self, text: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self._heads(self.key_value(text), 2)
        return key, value


def _silent(layer: nn.Linear) -> nn.Linear:
    """The layer with weights of zero: it says nothing until it is trained."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _plus(base: Tensor, h: Tensor, factor: Tensor, tokens: int) -> Tensor:
    """`base + h · factor` for tokens h [B, N, width], where the factor is one a frame, [B, F or 1, 1, width], and the
    base one a frame or a token."""
    if factor.shape[1] == 1:
        return torch.addcmul(base if base.ndim == 3 else base[:, 0], h, factor[:, 0])
    parts = (part if part.ndim == 4 else part.unflatten(1, (-1, tokens)) for part in (base, h, factor))
    return torch.addcmul(*parts).flatten(1, 2)


def _late(part: Tensor, call: Pass) -> Tensor:
    """What the new frames are told, without those that were deferred."""
    return part[:, call.deferred // call.tokens :] if part.shape[1] > 1 else part


class VideoTransformer(nn.Module):
    """States [B, F, C, H, W] of any number and size of frames that the patch divides; native times [B] or [B, F].

    `reach` says who sees whom; conditions are `label` [B], `text` [B, N, D] and `audio` [B, F, D].
    """

    def __init__(self, options: VideoDiT) -> None:
        super().__init__()
        width, self.patch, self.channels, self.reach = options.width, options.patch, options.channels, options.reach
        size = self.channels * self.patch[0] * self.patch[1] * self.patch[2]
        self.rope = Rotary(width // options.heads)
        self.inlet = nn.Linear(size, width)
        self.time = TimeEmbedding(width, 2 / 1000)
        self.still = Still(width, options.classes)
        self.audio = nn.Linear(options.audio, width) if options.audio else None
        self.text = nn.Linear(options.text, width) if options.text else None
        self.blocks = nn.ModuleList(
            Block(f"blocks.{n}", width, options.heads, options.ratio, bool(options.text)) for n in range(options.depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = _silent(nn.Linear(width, 2 * width))
        self.outlet = _silent(nn.Linear(width, size))

    def forward(self, x: Tensor, t: Tensor, cond: Mapping[str, Any], cache: Cache | None = None) -> Any:
        new = x.shape[1]
        x, t, cond, deferred = with_deferred(x, t, cond, cache, FRAMED)
        tokens, grid = self._patches(x)
        long = self.patch[0]
        call = Pass(cache, self.reach.over(long), new // long, deferred // long, grid)
        told = self._told(x, t, cond, call)
        h, text = self.inlet(tokens), self._text(cond, call)
        for n, block in enumerate(self.blocks):
            h = block(h, told[n], call, self.rope, text, n == len(self.blocks) - 1)
        shift, scale = told[-1][:, -(new // long) :].chunk(2, -1)
        out = self.outlet(_plus(shift, self.norm(h), scale, call.tokens))
        return call.end(self._frames(out, grid))

    def _patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patches as tokens [B, F' · rows · columns, values], and the rows and columns."""
        long, high, wide = self.patch
        batch, frames, channels, height, width = x.shape
        if frames % long or channels != self.channels:
            raise DistillError(
                f"a clip of {frames} frames with {channels} channels does not fit: the network takes {self.channels} "
                f"channels and a multiple of {long} frames"
            )
        rows, columns = grid_of(height, width, (high, wide))
        cut = x.reshape(batch, frames // long, long, channels, rows, high, columns, wide)
        return cut.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(batch, -1, self.inlet.in_features), (rows, columns)

    def _frames(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The way back: [B, F, C, H, W]."""
        cut = tokens.unflatten(2, (self.channels, *self.patch)).unflatten(1, (-1, *grid))
        return cut.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)

    def _told(self, x: Tensor, t: Tensor, cond: Mapping[str, Any], call: Pass) -> tuple[Tensor, ...]:
        """What the frames of tokens are told in each block and at the end, [B, F' or 1, 1, ·].

        Where they hear nothing, it is made once for each time that a stream asks at.
        """
        times = t.reshape(len(x), -1)
        if times.shape[1] > 1:
            times = times.unflatten(1, (-1, self.patch[0])).mean(2)
        if self.audio is None and call.kept and not x.is_cuda:
            return call.once(f"told {times.tolist()}", cond.get("label"), lambda _: self._speak(x, times, cond))
        return self._speak(x, times, cond)

    def _speak(self, x: Tensor, times: Tensor, cond: Mapping[str, Any]) -> tuple[Tensor, ...]:
        told = self.time(times.flatten()).unflatten(0, times.shape) + self.still(cond, x)[:, None]
        if self.audio is not None:
            told = told + self.audio(framed_as(cond["audio"], x).unflatten(1, (-1, self.patch[0])).mean(2))
        told, width = silu(told), told.shape[-1]
        said = [part.modulation(told)[:, :, None] for part in (*self.blocks, self)]
        one = torch.cat([told.new_zeros(width), told.new_ones(width), told.new_zeros(width)]).repeat(2)
        return tuple(part + one[: part.shape[-1]] for part in said)  # scales are one and what is learnt

    def _text(self, cond: Mapping[str, Any], call: Pass) -> Tensor | None:
        if self.text is None:
            return None
        project = self.text
        return call.once("text", cond["text"], lambda text: (project(text),) * 2)[0]


class VideoDiT(Builder):
    """A video transformer of our own: bidirectional, or block-causal with a cache where `reach` has chunks."""

    example: ClassVar[dict[str, Any]] = {
        "frames": 4, "size": (8, 8), "width": 24, "depth": 2, "heads": 2, "classes": 3, "text": 5, "words": 2,
        "audio": 3,
    }  # fmt: skip
    frames: PositiveInt = 24
    """Frames of a clip; a causal network takes any number of them one after the other."""
    channels: PositiveInt = 1
    """Channels of a frame."""
    size: tuple[PositiveInt, PositiveInt] = (32, 32)
    """Height and width of a frame."""
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (1, 4, 4)
    """Frames, height and width of a patch."""
    width: PositiveInt = 128
    """Values of a token."""
    depth: PositiveInt = 6
    """Blocks."""
    heads: PositiveInt = 4
    """Attention heads."""
    ratio: PositiveInt = 4
    """Hidden units of a block's perceptron per value of a token."""
    classes: NonNegativeInt = 0
    """Class labels; 0 is none. The label `classes` itself is the null condition."""
    text: NonNegativeInt = 0
    """Values of a text's token; 0 is without text."""
    words: PositiveInt = 8
    """Tokens of a text."""
    encoder: str = ""
    """Who encodes texts: minilm, wordllama, or the folder of a pipeline."""
    audio: NonNegativeInt = 0
    """Features of a frame's sound; 0 is without sound."""
    reach: Reach = Reach()
    """Which frames a frame attends to."""
    path: Literal["flow", "cosine", "trigonometric"] = "flow"
    """Forward process."""
    kind: Literal["velocity", "v", "x0", "eps"] = "velocity"
    """What the network says."""
    weights: str = ""
    """A safetensors file of weights."""
    steps: PositiveInt = 50
    """Steps of its own sampler."""
    guidance: float = 1.0
    """w of its own sampler."""

    def build(self) -> Denoiser:
        if self.width % self.heads:
            raise RecipeError(f"{self.heads} heads cannot share a width of {self.width}")
        if self.frames % self.patch[0]:
            raise RecipeError(f"clips of {self.frames} frames cannot be cut into patches of {self.patch[0]} frames")
        grid_of(*self.size, self.patch[1:])
        self.reach.over(self.patch[0])
        network = VideoTransformer(self)
        if self.weights:
            checkpoint.fill(network, Path(self.weights), "network.")
        return Denoiser(
            network, PATHS[self.path](), self.kind, shape=(self.frames, self.channels, *self.size), null=self._null(),
            taps=(f"blocks.{self.depth // 2}",), scalar_sites=("still",),
        )  # fmt: skip

    def sampler(self) -> Sampler:
        kind = ChunkSampler if self.reach.chunk else Sampler
        return kind(steps=self.steps, guidance=self.guidance)

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        return said(self.encoder, self.words, prompts) if self.text else super().encode(prompts)

    def _null(self) -> dict[str, Any]:
        """Value of each condition when it is dropped."""
        text, audio = torch.zeros(self.words, self.text), torch.zeros(self.audio)
        sizes = {"label": (self.classes, self.classes), "text": (self.text, text), "audio": (self.audio, audio)}
        return {name: value for name, (size, value) in sizes.items() if size}


class Causal(Transform):
    """Let a role's video network see only chunks that are done: the same weights under a block-causal mask.

    CausVid, arXiv:2412.07772, section 4.1.
    """

    example: ClassVar[dict[str, Any]] = {"reach": {"chunk": 2}}
    conformance: ClassVar[dict[str, str]] = {"toy/transform": "the toy has no frames"}
    reach: Reach
    """Which frames a frame attends to."""

    def apply(self, roles: Roles, name: str) -> None:
        network: Any = roles[name].denoiser.network
        if not isinstance(getattr(network, "reach", None), Reach):
            raise RecipeError(f"the network of role '{name}' does not say which frames see each other: it has no reach")
        network.reach = self.reach
