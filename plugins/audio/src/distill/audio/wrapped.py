"""diffusers' audio transformers as denoisers, and Oobleck between their latents and waveforms.

States are [B, N, D], tokens before channels; the networks' own states are [B, D, N].
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from distill.audio.codecs import in_pieces
from distill.audio.modality import Audio
from distill.audio.spectra import waves
from distill.core import Builder, Denoiser, DistillError, GaussianPath, Lens, Modality, Sampler, State
from distill.core.paths import PATHS
from distill.core.sampling import DDIM as Euler
from distill.core.sampling import DPM, Grid, Solver

Conditions = Mapping[str, Any]
THOUSAND = 1000
"""What paths multiply a time with before networks see it; these networks want it as it is."""


class WrappedAudio(nn.Module):
    """A transformer of diffusers called with states [B, N, D] and native times [B]; `net` is the network itself."""

    def __init__(self, net: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.net, self.parts = net, nn.ModuleDict(parts)

    def forward(self, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return self.ask(x, t / THOUSAND, cond)

    @abstractmethod
    def ask(self, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """The network's output at times in [0, 1]."""


class WrappedStableAudio(WrappedAudio):
    """`StableAudioDiTModel` with its projection of text and seconds."""

    def ask(self, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        start, end = cond["seconds"].to(x).unbind(1)
        said = self.parts["projection"](cond["text"].to(x), start, end)
        seconds = [said.seconds_start_hidden_states, said.seconds_end_hidden_states]
        whole = torch.cat(seconds, 2)
        dim = self.net.config.attention_head_dim // 2
        turn = get_1d_rotary_pos_embed(dim, x.shape[1] + 1, use_real=True, repeat_interleave_real=False)
        out: Tensor = self.net(
            x.mT, t, encoder_hidden_states=torch.cat([said.text_hidden_states, *seconds], 1),
            global_hidden_states=whole, rotary_embedding=tuple(part.to(x) for part in turn), return_dict=False,
        )[0]  # fmt: skip
        return out.mT


class WrappedStableAudio3(WrappedAudio):
    """`StableAudio3DiTModel` with its embedding of the duration, which is a word of the text too."""

    def ask(self, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        duration = self.parts["duration"](cond["seconds"].to(x)[:, 1])
        text = torch.cat([cond["text"].to(x), duration[:, None]], 1)
        out: Tensor = self.net(x.mT, t, text, duration, return_dict=False)[0]
        return out.mT


class WrappedLongCat(WrappedAudio):
    """`LongCatAudioDiTTransformer`, whose time runs from noise to data, and its velocity with it."""

    def ask(self, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        text = cond["text"].to(x)
        known = text.abs().sum(2) > 0
        known[:, 0] = True  # a text without words would leave attention nothing to see
        out: Tensor = self.net(x, text, known, 1 - t, return_dict=False)[0]
        return -out


# ---------------------------------------------------------------- builders


class AudioNetwork(Builder):
    """An audio transformer of diffusers, from `model` (a folder or hub id) or from `config`."""

    model: str = ""
    """Folder of a saved pipeline, or a hub id; empty builds from `config` with random weights."""
    config: dict[str, Any] = {}
    """Arguments of the network's class, where it is built."""
    parts: dict[str, dict[str, Any]] = {}
    """Arguments of the classes that embed its conditions, by name, where they are built."""
    tokens: PositiveInt = 1024
    """Tokens of a sound's latents."""
    words: PositiveInt = 128
    """Tokens of a text."""
    steps: PositiveInt = 50
    """Steps of its own sampler."""
    guidance: float = 1.0
    """w of its own sampler."""

    network_class: ClassVar[str] = ""
    part_classes: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Classes that embed conditions and the folders that pipelines keep them in, by name."""
    family: ClassVar[tuple[str, str]] = ("flow", "velocity")
    layers: ClassVar[str] = "transformer_blocks"
    solver: ClassVar[Solver] = Euler()

    def build(self) -> Denoiser:
        import diffusers

        made = {name: self._made(getattr(diffusers, kind), folder, self.parts.get(name, {}))
                for name, (kind, folder) in self.part_classes.items()}  # fmt: skip
        net = self._made(getattr(diffusers, self.network_class), "transformer", self.config)
        path: GaussianPath = PATHS[self.family[0]]()
        count = len(getattr(net, self.layers))
        return Denoiser(
            self.wrap(net, made), path, self.family[1], shape=(self.tokens, self.width(net)),
            null=self.null(net, made), taps=(f"net.{self.layers}.{count // 2}",),
        )  # fmt: skip

    @abstractmethod
    def wrap(self, net: Any, parts: Mapping[str, nn.Module]) -> WrappedAudio:
        """The network with what embeds its conditions."""

    @abstractmethod
    def width(self, net: Any) -> int:
        """Channels of a state."""

    @abstractmethod
    def null(self, net: Any, parts: Mapping[str, Any]) -> dict[str, Tensor]:
        """Value of each condition when it is dropped."""

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps, grid=Grid(), solver=self.solver, guidance=self.guidance)

    def modality(self) -> Modality | None:
        return OobleckAudio(model=self.model) if self.model else None

    def _made(self, kind: Any, folder: str, config: Mapping[str, Any]) -> Any:
        place = Path(self.model)
        nested = {"subfolder": folder} if not place.is_dir() or (place / folder).is_dir() else {}
        try:
            return kind.from_pretrained(self.model, **nested) if self.model else kind(**config)
        except (AttributeError, OSError, TypeError, ValueError, ZeroDivisionError) as error:
            where = f"from '{self.model}'" if self.model else "from this config"
            raise DistillError(f"{kind.__name__} cannot be had {where}: {error}") from error


class StableAudio(AudioNetwork):
    """`StableAudioDiTModel`, text and seconds (start, end) to sound: Stable Audio Open."""

    example: ClassVar[dict[str, Any]] = {
        "tokens": 6, "words": 3,
        "config": {
            "sample_size": 6, "in_channels": 4, "out_channels": 4, "num_layers": 2, "attention_head_dim": 8,
            "num_attention_heads": 2, "num_key_value_attention_heads": 2, "cross_attention_dim": 8,
            "cross_attention_input_dim": 8, "global_states_input_dim": 16, "time_proj_dim": 8,
        },
        "parts": {"projection": {"text_encoder_dim": 6, "conditioning_dim": 8, "min_value": 0, "max_value": 64}},
    }  # fmt: skip
    network_class: ClassVar[str] = "StableAudioDiTModel"
    part_classes: ClassVar[Mapping[str, tuple[str, str]]] = {
        "projection": ("StableAudioProjectionModel", "projection_model")
    }
    family: ClassVar[tuple[str, str]] = ("cosine", "v")
    solver: ClassVar[Solver] = DPM()

    def wrap(self, net: Any, parts: Mapping[str, nn.Module]) -> WrappedAudio:
        return WrappedStableAudio(net, **parts)

    def width(self, net: Any) -> int:
        return int(net.config.in_channels)

    def null(self, net: Any, parts: Mapping[str, Any]) -> dict[str, Tensor]:
        text = torch.zeros(self.words, parts["projection"].config.text_encoder_dim)
        return {"text": text, "seconds": torch.zeros(2)}


class StableAudio3(AudioNetwork):
    """`StableAudio3DiTModel`, text and seconds (start, whole) to sound; of the seconds it takes the whole."""

    example: ClassVar[dict[str, Any]] = {
        "tokens": 6, "words": 3,
        "config": {
            "io_channels": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "cond_token_dim": 8, "global_cond_dim": 8,
            "local_add_cond_dim": 5, "timestep_features_dim": 8, "num_memory_tokens": 2,
        },
        "parts": {"duration": {"output_dim": 8, "fourier_dim": 8}},
    }  # fmt: skip
    network_class: ClassVar[str] = "StableAudio3DiTModel"
    part_classes: ClassVar[Mapping[str, tuple[str, str]]] = {
        "duration": ("StableAudio3DurationEmbedder", "duration_embedder")
    }

    def wrap(self, net: Any, parts: Mapping[str, nn.Module]) -> WrappedAudio:
        return WrappedStableAudio3(net, **parts)

    def width(self, net: Any) -> int:
        return int(net.config.io_channels)

    def null(self, net: Any, parts: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"text": torch.zeros(self.words, net.config.cond_token_dim), "seconds": torch.zeros(2)}


class LongCat(AudioNetwork):
    """`LongCatAudioDiTTransformer`, text to sound."""

    example: ClassVar[dict[str, Any]] = {
        "tokens": 6, "words": 3,
        "config": {"dit_dim": 16, "dit_depth": 2, "dit_heads": 2, "dit_text_dim": 6, "latent_dim": 4},
    }  # fmt: skip
    network_class: ClassVar[str] = "LongCatAudioDiTTransformer"
    layers: ClassVar[str] = "blocks"

    def wrap(self, net: Any, parts: Mapping[str, nn.Module]) -> WrappedAudio:
        return WrappedLongCat(net)

    def width(self, net: Any) -> int:
        return int(net.config.latent_dim)

    def null(self, net: Any, parts: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"text": torch.zeros(self.words, net.config.dit_text_dim)}


# ---------------------------------------------------------------- Oobleck


@cache
def oobleck(model: str) -> Any:
    """The autoencoder of a folder or hub id, frozen."""
    import diffusers

    place = Path(model)
    nested = {"subfolder": "vae"} if (place / "vae").is_dir() or not place.is_dir() else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # diffusers builds it with torch's old weight norm
            found = diffusers.AutoencoderOobleck.from_pretrained(model, **nested)
    except (OSError, ValueError) as error:
        raise DistillError(f"AutoencoderOobleck cannot be had from '{model}': {error}") from error
    return found.eval().requires_grad_(False)


class _Oobleck(Lens):
    model: str
    """Folder of a saved pipeline or autoencoder, or a hub id."""
    piece: PositiveInt = 512
    """Tokens that are changed at once; longer sounds go piece by piece."""
    overlap: NonNegativeInt = 64
    """Tokens by which pieces overlap, where they are faded into each other."""

    def _pieces(self, change: Callable[[Tensor], Tensor], x: Tensor, size: int, ratio: Fraction) -> Tensor:
        if x.shape[-1] <= self.piece * size:
            return change(x)
        return in_pieces(change, x, self.piece * size, self.overlap * size, ratio)


class ToOobleck(_Oobleck):
    """Waveforms [B, C, T] to latents [B, N, D] of Oobleck, the mean of what it says."""

    example: ClassVar[dict[str, Any]] = {"model": "stable-audio"}
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "there is no folder of a pipeline that every machine has"}

    def __call__(self, state: State) -> Any:
        codec, sound = oobleck(self.model).to(waves(state).device), waves(state)
        hop = prod(codec.config.downsampling_ratios)
        return self._pieces(lambda x: codec.encode(x).latent_dist.mean, sound, hop, Fraction(1, hop)).mT


class FromOobleck(_Oobleck):
    """Latents [B, N, D] of Oobleck to waveforms [B, C, T], at the codec's rate (44.1 kHz) and with its channels."""

    example: ClassVar[dict[str, Any]] = {"model": "stable-audio"}
    conformance: ClassVar[dict[str, str]] = {"toy/lens": "there is no folder of a pipeline that every machine has"}

    def __call__(self, state: State) -> Any:
        assert isinstance(state, Tensor)
        codec = oobleck(self.model).to(state.device)
        hop = prod(codec.config.downsampling_ratios)
        return self._pieces(lambda z: codec.decode(z).sample, state.mT, 1, Fraction(hop))


class OobleckAudio(Audio):
    """Sounds that are heard, written and measured through a pipeline's Oobleck."""

    example: ClassVar[dict[str, Any]] = {"model": "stable-audio"}
    model: str
    """Folder of the pipeline, or a hub id."""
    rate: PositiveInt = 44_100
    """Samples a second."""

    @torch.no_grad()
    def decode(self, samples: State) -> Any:
        assert isinstance(samples, Tensor)
        known = oobleck(self.model).config.audio_channels
        if samples.ndim == 3 and samples.shape[1] == known:
            return samples
        lens = FromOobleck(model=self.model)
        return torch.cat([lens(part).float() for part in samples.split(1)])
