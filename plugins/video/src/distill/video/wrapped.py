"""diffusers' video transformers as denoisers, in bidirectional and block-causal form.

A wrapped network runs as diffusers wrote it, but for its attention: processors of our own know the call under way
(`Pass`), turn queries and keys to the positions that the frames have in the stream, and keep a text's keys.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers.models.normalization import AdaLayerNorm, CogVideoXLayerNormZero
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from distill.core import Builder, Cache, Denoiser, DistillError, GaussianPath, Sampler
from distill.core.errors import RecipeError
from distill.core.paths import PATHS, Discrete
from distill.core.sampling import DDIM, Grid
from distill.video.attention import Pass, Reach, Rotary, grid_of, turned, unit, with_deferred
from distill.video.streaming import ChunkSampler
from distill.video.texts import PipelineTexts, said, texts_of

Conditions = Mapping[str, Any]


@dataclass
class Desk:
    """What the processors of a network need to know while it is being called, and only then."""

    call: Pass | None = None
    rope: Any = None
    move: Any = None
    text: Tensor | None = None

    @property
    def now(self) -> Pass:
        """The call under way."""
        if self.call is None:
            raise DistillError("this network is a part of a video denoiser: ask that, not the network")
        return self.call


@dataclass
class SelfAttention:
    """Processor of an attention among the frames' own tokens."""

    name: str
    desk: Desk

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:  # fmt: skip
        q, k = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(hidden_states))
        if image_rotary_emb is not None and self.desk.rope is None:  # rotated across heads, as LTX does it
            q, k = _across(q, image_rotary_emb), _across(k, image_rotary_emb)
        q, k, v = (_heads(part, attn.heads) for part in (q, k, attn.to_v(hidden_states)))
        if self.desk.rope is not None:
            q, k = (turned(part, self.desk.rope) for part in (q, k))
        seen = self.desk.now.attend(self.name, q, k, v, self.desk.move)
        return attn.to_out[0](seen.transpose(1, 2).flatten(2))


@dataclass
class TextAttention:
    """Processor of an attention to a text, whose keys are made once."""

    name: str
    desk: Desk

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:  # fmt: skip
        def make(_: Tensor) -> tuple[Tensor, Tensor]:
            key, value = attn.norm_k(attn.to_k(encoder_hidden_states)), attn.to_v(encoder_hidden_states)
            return _heads(key, attn.heads), _heads(value, attn.heads)

        assert self.desk.text is not None
        key, value = self.desk.now.once(self.name, self.desk.text, make)
        q = _heads(attn.norm_q(attn.to_q(hidden_states)), attn.heads)
        mask = None if attention_mask is None else attention_mask[:, None]
        said = scaled_dot_product_attention(q, key, value, attn_mask=mask)
        return attn.to_out[0](said.transpose(1, 2).flatten(2))


@dataclass
class JointAttention:
    """Processor of an attention of frames and text together (CogVideoX).

    In block-causal form the text looks at itself only, so that its keys stay what they are while frames come.
    """

    name: str
    desk: Desk

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Any = None, attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> Any:  # fmt: skip
        call, words = self.desk.now, encoder_hidden_states.shape[1]
        both = torch.cat([encoder_hidden_states, hidden_states], 1)
        q, k, v = (_heads(layer(both), attn.heads) for layer in (attn.to_q, attn.to_k, attn.to_v))
        q, k = (part if norm is None else norm(part) for part, norm in ((q, attn.norm_q), (k, attn.norm_k)))
        asked, key = q[:, :, words:], k[:, :, words:]
        if self.desk.rope is not None:
            asked, key = (turned(part, self.desk.rope) for part in (asked, key))
        assert self.desk.text is not None
        text = call.once(self.name, self.desk.text, lambda _: (k[:, :, :words], v[:, :, :words]))
        seen = call.attend(self.name, asked, key, v[:, :, words:], self.desk.move, beside=text)
        whole = () if call.reach.chunk else (torch.cat([text[0], key], 2), torch.cat([text[1], v[:, :, words:]], 2))
        said = scaled_dot_product_attention(q[:, :, :words], *(whole or text)) if words else q[:, :, :0]
        out = attn.to_out[0](torch.cat([said, seen], 2).transpose(1, 2).flatten(2))
        return out[:, words:], out[:, :words]


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _across(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = table
    return turned(x, torch.complex(cosine[..., ::2], sine[..., ::2]))


class WrappedVideo(nn.Module):
    """A transformer of diffusers, called with states [B, F, C, H, W] and native times [B] or [B, F].

    `net` is the network itself, `reach` says who sees whom; the condition is `text` [B, N, D].
    """

    processors: ClassVar[dict[str, Any]] = {}
    """Which processor each attention of a block gets."""
    blocks: ClassVar[str] = "transformer_blocks"

    def __init__(self, net: Any, reach: Reach) -> None:
        super().__init__()
        self.net, self.reach, self.desk = net, reach, Desk()
        for n, block in enumerate(getattr(net, self.blocks)):
            for part, processor in self.processors.items():
                getattr(block, part).set_processor(processor(f"{n}.{part}", self.desk))

    @property
    @abstractmethod
    def patch(self) -> tuple[int, int, int]:
        """Frames, height and width of a patch."""

    def forward(self, x: Tensor, t: Tensor, cond: Conditions, cache: Cache | None = None) -> Any:
        new = x.shape[1]
        x, t, cond, deferred = with_deferred(x, t, cond, cache, ())
        long, grid = self.patch[0], grid_of(x.shape[3], x.shape[4], self.patch[1:])
        call = Pass(cache, self.reach.over(long), new // long, deferred // long, grid)
        text = cond["text"]
        known = not torch.is_grad_enabled() and call.knows(text)
        self.desk.call, self.desk.text = call, text
        try:
            said = self.ask(x, t, text[:, :0] if known else text, cond, call, grid)
        finally:
            self.desk.call = self.desk.text = self.desk.rope = None
        return call.end(said[:, deferred:])

    @abstractmethod
    def ask(self, x: Tensor, t: Tensor, text: Tensor, cond: Conditions, call: Pass, grid: tuple[int, int]) -> Tensor:
        """The network's output; the text has no tokens where its keys are known."""

    def times(self, t: Tensor, tokens: int) -> Tensor:
        """Native times [B], or [B, N] of every token where frames have their own."""
        if t.ndim < 2:
            return t
        return t.unflatten(1, (-1, self.patch[0])).mean(2).repeat_interleave(tokens, 1)


class WrappedWan(WrappedVideo):
    """`WanTransformer3DModel`."""

    processors: ClassVar[dict[str, Any]] = {"attn1": SelfAttention, "attn2": TextAttention}
    blocks: ClassVar[str] = "blocks"

    def __init__(self, net: Any, reach: Reach) -> None:
        super().__init__(net, reach)
        if net.config.added_kv_proj_dim is not None:
            raise RecipeError("Wan networks that look at a picture besides the text are not supported")
        self.rotary = Rotary(net.config.attention_head_dim)
        self.desk.move = self.rotary.move

    @property
    def patch(self) -> tuple[int, int, int]:
        return tuple(self.net.config.patch_size)

    def ask(self, x: Tensor, t: Tensor, text: Tensor, cond: Conditions, call: Pass, grid: tuple[int, int]) -> Tensor:
        self.desk.rope = self.rotary.table(call.frames, grid, x.device)
        out: Tensor = self.net(x.transpose(1, 2), self.times(t, call.tokens), text, return_dict=False)[0]
        return out.transpose(1, 2)


class WrappedLTX(WrappedVideo):
    """`LTXVideoTransformer3DModel`; `text_mask` [B, N] may say which of the text's tokens count.

    Args:
        scale: seconds between two latent frames, and pixels of a latent's height and width.
    """

    processors: ClassVar[dict[str, Any]] = {"attn1": SelfAttention, "attn2": TextAttention}

    def __init__(self, net: Any, reach: Reach, scale: tuple[float, float, float]) -> None:
        super().__init__(net, reach)
        self.scale = scale
        self.desk.move = self._move

    @property
    def patch(self) -> tuple[int, int, int]:
        config = self.net.config
        return config.patch_size_t, config.patch_size, config.patch_size

    def ask(self, x: Tensor, t: Tensor, text: Tensor, cond: Conditions, call: Pass, grid: tuple[int, int]) -> Tensor:
        long, high, wide = self.patch
        cut = x.unflatten(4, (-1, wide)).unflatten(3, (-1, high)).unflatten(1, (-1, long))  # b f p c h q w r
        tokens = cut.permute(0, 1, 4, 6, 3, 2, 5, 7).flatten(4).flatten(1, 3)
        times = self.times(t, call.tokens)
        out = self.net(
            tokens, text, times if times.ndim == 2 else times[:, None], cond.get("text_mask"),
            video_coords=self._places(call.frames, grid, x), return_dict=False,
        )[0]  # fmt: skip
        back = out.unflatten(2, (-1, long, high, wide)).unflatten(1, (-1, *grid))  # b f h w c p q r
        return back.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)

    def _places(self, frames: tuple[int, ...], grid: tuple[int, int], x: Tensor) -> Tensor:
        """Seconds, rows and columns in pixels of every token: [B, 3, N]."""
        axes = (torch.tensor(frames), torch.arange(grid[0]), torch.arange(grid[1]))
        sized = [axis.float() * size * step for axis, size, step in zip(axes, self.scale, self.patch, strict=True)]
        return torch.stack(torch.meshgrid(*sized, indexing="ij")).flatten(1).to(x)[None].expand(len(x), -1, -1)

    def _move(self, keys: Tensor, frames: int) -> Tensor:
        """Keys [B, heads, N, dim] moved by a number of frames."""
        rope = self.net.rope
        count = rope.dim // 6
        rates = rope.theta ** torch.linspace(0, 1, count, dtype=torch.float64) * math.pi
        step = rates * frames * self.scale[0] * self.patch[0] / rope.base_num_frames
        angle = torch.stack([step, torch.zeros_like(step), torch.zeros_like(step)], 1).flatten()
        angle = torch.cat([angle.new_zeros(rope.dim % 6 // 2), angle]).unflatten(0, (keys.shape[1], 1, -1))
        return turned(keys, unit(angle).to(keys.device))


class FramedZero(CogVideoXLayerNormZero):
    """The block's norm with a time for the text and one for every frame: embeddings [B · (1 + F), D]."""

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor) -> Any:
        if len(temb) == len(hidden_states):
            return super().forward(hidden_states, encoder_hidden_states, temb)
        parts = self.linear(self.silu(temb)).unflatten(0, (len(hidden_states), -1)).chunk(6, 2)
        shift, scale, gate = (_each(part[:, 1:], hidden_states) for part in parts[:3])
        text_shift, text_scale, text_gate = (part[:, :1] for part in parts[3:])
        frames = self.norm(hidden_states) * (1 + scale) + shift
        return frames, self.norm(encoder_hidden_states) * (1 + text_scale) + text_shift, gate, text_gate


class FramedNorm(AdaLayerNorm):
    """The last norm, with the same embeddings."""

    def forward(self, x: Tensor, timestep: Any = None, temb: Any = None) -> Tensor:
        if len(temb) == len(x):
            return super().forward(x, timestep, temb)
        parts = self.linear(self.silu(temb)).unflatten(0, (len(x), -1))[:, 1:].chunk(2, 2)
        shift, scale = (_each(part, x) for part in parts)
        return self.norm(x) * (1 + scale) + shift


def _each(part: Tensor, tokens: Tensor) -> Tensor:
    """What frames are told [B, F, D], for each of their tokens."""
    return part.repeat_interleave(tokens.shape[1] // part.shape[1], 1)


class WrappedCog(WrappedVideo):
    """`CogVideoXTransformer3DModel`.

    The text goes through the blocks beside the frames. In block-causal form it looks only at itself, at time zero.
    """

    processors: ClassVar[dict[str, Any]] = {"attn1": JointAttention}

    def __init__(self, net: Any, reach: Reach) -> None:
        super().__init__(net, reach)
        dim = net.config.attention_head_dim
        self.rotary = Rotary(dim, pairs=(dim // 8, dim // 16 * 3, dim // 16 * 3))
        self.desk.move = self.rotary.move
        for block in net.transformer_blocks:  # a class of the same weights and names, which reads a time per frame
            block.norm1.__class__ = block.norm2.__class__ = FramedZero
        net.norm_out.__class__ = FramedNorm

    @property
    def patch(self) -> tuple[int, int, int]:
        config = self.net.config
        return config.patch_size_t or 1, config.patch_size, config.patch_size

    def ask(self, x: Tensor, t: Tensor, text: Tensor, cond: Conditions, call: Pass, grid: tuple[int, int]) -> Tensor:
        if self.net.config.use_rotary_positional_embeddings:
            self.desk.rope = self.rotary.table(call.frames, grid, x.device)
        elif call.kept:
            raise DistillError("this CogVideoX has positions of a fixed clip, not rotary ones: it cannot be streamed")
        out: Tensor = self.net(x, text, self._times(t, len(call.frames)), return_dict=False)[0]
        return out

    def _times(self, t: Tensor, frames: int) -> Tensor:
        """Native times [B], or of the text and every frame of tokens one after the other: [B · (1 + F)]."""
        if t.ndim < 2 and not self.reach.chunk:
            return t
        each = t[:, None].expand(-1, frames) if t.ndim < 2 else self.times(t, 1)
        text = torch.zeros_like(each[:, :1]) if self.reach.chunk else each.mean(1, keepdim=True)
        return torch.cat([text, each], 1).flatten()


# ---------------------------------------------------------------- builders


class VideoNetwork(Builder):
    """A video transformer of diffusers, from `model` (a folder or hub id) or from `config`."""

    model: str = ""
    """Folder of a saved pipeline or network, or a hub id; empty builds from `config` with random weights."""
    config: dict[str, Any] = {}
    """Arguments of the network's class, where it is built."""
    frames: PositiveInt = 21
    """Frames of a clip's latents."""
    size: tuple[PositiveInt, PositiveInt] = (60, 104)
    """Height and width of a clip's latents."""
    words: PositiveInt = 512
    """Tokens of a text."""
    encoder: str = ""
    """Who encodes texts: minilm, wordllama, or the folder of a pipeline; that of `model` if empty."""
    reach: Reach = Reach()
    """Which frames a frame attends to."""
    path: Literal["", "flow", "cosine"] = ""
    """Forward process; that of the family if empty."""
    kind: Literal["", "eps", "v", "velocity", "x0"] = ""
    """What the network says; as in the family if empty."""
    steps: PositiveInt = 50
    """Steps of its own sampler."""
    shift: float = 1.0
    """Timestep shift of its own sampler."""
    guidance: float = 1.0
    """w of its own sampler."""

    network_class: ClassVar[str] = ""
    text_width: ClassVar[str] = ""
    family: ClassVar[tuple[Callable[[], GaussianPath], str]] = (PATHS["flow"], "velocity")

    def build(self) -> Denoiser:
        network = self.wrap(self._net())
        grid_of(*self.size, network.patch[1:])
        network.reach.over(network.patch[0])
        path, kind = self.family
        return Denoiser(
            network, PATHS[self.path]() if self.path else path(), self.kind or kind, null=self._null(network),
            shape=(self.frames, self.channels(network), *self.size), taps=self.taps(network),
        )  # fmt: skip

    @abstractmethod
    def wrap(self, net: Any) -> WrappedVideo:
        """The network with our attention."""

    def channels(self, network: WrappedVideo) -> int:
        """Channels of a state."""
        return int(network.net.config.in_channels)

    def taps(self, network: WrappedVideo) -> tuple[str, ...]:
        """The block in the middle."""
        return (f"net.{network.blocks}.{len(getattr(network.net, network.blocks)) // 2}",)

    def sampler(self) -> Sampler:
        kind = ChunkSampler if self.reach.chunk else Sampler
        return kind(steps=self.steps, grid=Grid(shift=self.shift), solver=DDIM(), guidance=self.guidance)

    def encode(self, prompts: Sequence[str]) -> dict[str, Any]:
        return said(self._encoder, self.words, prompts)

    @property
    def _encoder(self) -> str:
        return self.encoder or (self.model if (Path(self.model) / "model_index.json").is_file() else "")

    def _null(self, network: WrappedVideo) -> dict[str, Any]:
        """What stands for no text: the empty one, where a pipeline encodes texts."""
        texts = texts_of(self._encoder, self.words) if self._encoder else None
        if isinstance(texts, PipelineTexts):
            return texts.null
        return {"text": torch.zeros(self.words, network.net.config[self.text_width])}

    def _net(self) -> Any:
        import diffusers

        kind = getattr(diffusers, self.network_class)
        folder = Path(self.model)
        nested = {"subfolder": "transformer"} if not folder.is_dir() or (folder / "transformer").is_dir() else {}
        try:
            net = kind.from_pretrained(self.model, **nested) if self.model else kind(**self.config)
        except (AttributeError, OSError, TypeError, ValueError, ZeroDivisionError) as error:
            where = f"from '{self.model}'" if self.model else "from this config"
            raise DistillError(f"{self.network_class} cannot be had {where}: {error}") from error
        return net


class Wan(VideoNetwork):
    """`WanTransformer3DModel`, text to video: Wan 2.1 and 2.2."""

    example: ClassVar[dict[str, Any]] = {
        "frames": 4, "size": (4, 4), "words": 3,
        "config": {
            "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 3, "out_channels": 3, "text_dim": 6,
            "freq_dim": 8, "ffn_dim": 16, "num_layers": 2,
        },
    }  # fmt: skip
    network_class: ClassVar[str] = "WanTransformer3DModel"
    text_width: ClassVar[str] = "text_dim"

    def wrap(self, net: Any) -> WrappedVideo:
        return WrappedWan(net, self.reach)


class LTX(VideoNetwork):
    """`LTXVideoTransformer3DModel`, text to video."""

    example: ClassVar[dict[str, Any]] = {
        "frames": 4, "size": (2, 2), "words": 3,
        "config": {
            "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 3, "out_channels": 3, "num_layers": 2,
            "cross_attention_dim": 16, "caption_channels": 6,
        },
    }  # fmt: skip
    network_class: ClassVar[str] = "LTXVideoTransformer3DModel"
    text_width: ClassVar[str] = "caption_channels"
    words: PositiveInt = 128
    """Tokens of a text."""
    scale: tuple[float, float, float] = (8 / 25, 32, 32)
    """Seconds between two latent frames, and pixels of a latent's height and width."""

    def wrap(self, net: Any) -> WrappedVideo:
        return WrappedLTX(net, self.reach, self.scale)

    def channels(self, network: WrappedVideo) -> int:
        return int(network.net.config.in_channels) // math.prod(network.patch)


class CogVideoX(VideoNetwork):
    """`CogVideoXTransformer3DModel`, text to video; streams where its positions are rotary (5B, 1.5)."""

    example: ClassVar[dict[str, Any]] = {
        "frames": 4, "size": (4, 4), "words": 3,
        "config": {
            "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 3, "out_channels": 3, "num_layers": 2,
            "text_embed_dim": 6, "time_embed_dim": 8, "sample_width": 4, "sample_height": 4, "sample_frames": 13,
            "max_text_seq_length": 3, "use_rotary_positional_embeddings": True,
        },
    }  # fmt: skip
    network_class: ClassVar[str] = "CogVideoXTransformer3DModel"
    text_width: ClassVar[str] = "text_embed_dim"
    family: ClassVar[tuple[Callable[[], GaussianPath], str]] = (Discrete.scaled_linear, "v")
    frames: PositiveInt = 13
    """Frames of a clip's latents."""
    size: tuple[PositiveInt, PositiveInt] = (60, 90)
    """Height and width of a clip's latents."""
    words: PositiveInt = 226
    """Tokens of a text."""

    def wrap(self, net: Any) -> WrappedVideo:
        return WrappedCog(net, self.reach)
