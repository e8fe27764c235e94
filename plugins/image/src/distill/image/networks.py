"""diffusers' networks as denoisers, built small from a config or loaded from a local folder or a hub id.

Every class below names one network class of diffusers and how it is called; sizes and channels come from the network's
own config, path and parameterisation from the scheduler that lies beside it.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from distill.core import Builder, Denoiser, DistillError, Sampler, checkpoint
from distill.core.errors import RecipeError
from distill.core.paths import PATHS, Discrete, Flow, GaussianPath
from distill.core.sampling import DDIM, Grid
from distill.image import schedulers
from distill.methods.captions import ENCODERS

Conditions = Mapping[str, Any]


class Wrapped(nn.Module):
    """A diffusers network called as `(x, native_time, cond)`; `net` is the network itself, so taps read naturally."""

    def __init__(self, net: nn.Module, call: Callable[[nn.Module, Tensor, Tensor, Conditions], Tensor]) -> None:
        super().__init__()
        self.net, self.call = net, call

    def forward(self, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        return self.call(self.net, x, t, cond)


class DiffusersNetwork(Builder):
    """A network of diffusers, from `model` (a folder or hub id) or from `config`."""

    model: str = ""
    """Folder of a saved pipeline or network, or a hub id; empty builds from `config` with random weights."""
    config: dict[str, Any] = {}
    """Arguments of the network's class, where it is built."""
    weights: str = ""
    """A safetensors file of weights for the built network."""
    path: Literal["", "flow", "cosine", "discrete"] = ""
    """Forward process; read from the model's scheduler if empty, flow where there is none."""
    kind: Literal["", "eps", "v", "velocity", "x0"] = ""
    """What the network says; read from the scheduler if empty, velocity where there is none."""
    steps: int = 50
    """Steps of the teacher's own sampler."""

    network_class: ClassVar[str] = ""
    subfolder: ClassVar[str] = ""
    sites: ClassVar[tuple[str, ...]] = ()

    def build(self) -> Denoiser:
        net = self._net()
        path, kind = self._process()
        return Denoiser(
            Wrapped(net, type(self).call), path, kind, shape=self.sample_shape(net), null=self.null(net),
            taps=self.taps(net), scalar_sites=tuple(f"net.{site}" for site in self.scalar_sites(net)),
        )  # fmt: skip

    @staticmethod
    @abstractmethod
    def call(net: nn.Module, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        """The network's output for states [B, C, H, W], native times [B] and named conditions."""

    def null(self, net: Any) -> dict[str, Any]:
        """Value of each condition when it is dropped."""
        return {}

    def taps(self, net: Any) -> tuple[str, ...]:
        """Submodules whose outputs serve a discriminator."""
        return ()

    def scalar_sites(self, net: Any) -> tuple[str, ...]:
        """Submodules whose output an extra scalar input is added to."""
        return self.sites

    def sample_shape(self, net: Any) -> tuple[int, ...]:
        """[C, H, W] of one state, from the network's config."""
        side = net.config.sample_size
        height, width = side if isinstance(side, list | tuple) else (side, side)
        return (net.config.in_channels, height, width)

    def sampler(self) -> Sampler:
        return Sampler(steps=self.steps, grid=Grid(shift=self._shift()), solver=DDIM())

    def _class(self) -> Any:
        import diffusers

        return getattr(diffusers, self.network_class)

    def _net(self) -> Any:
        if self.model:
            return self._load()
        try:
            net = self._class()(**self.config)
        except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
            raise RecipeError(f"{self.network_class} cannot be built from this config: {error}") from error
        if self.weights:
            checkpoint.fill(net, Path(self.weights), "network.net.")
        return net

    def _load(self) -> Any:
        folder = Path(self.model)
        nested = {"subfolder": self.subfolder} if not folder.is_dir() or (folder / self.subfolder).is_dir() else {}
        try:
            return self._class().from_pretrained(self.model, use_safetensors=True, **nested)
        except (OSError, ValueError, SafetensorError) as error:
            raise DistillError(
                f"{self.network_class} could not be loaded from '{self.model}': {error}. Give a folder that "
                f"save_pretrained wrote (with or without {self.subfolder}/), or a hub id that can be reached."
            ) from error

    def _scheduler(self) -> dict[str, Any]:
        """The config of the scheduler beside the network; empty where there is none."""
        if not self.model or self.path and self.kind:
            return {}
        if not Path(self.model).is_dir():
            return self._hub_scheduler()
        path = Path(self.model) / "scheduler" / "scheduler_config.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _hub_scheduler(self) -> dict[str, Any]:
        import diffusers

        try:
            found: Any = diffusers.DDIMScheduler.load_config(self.model, subfolder="scheduler")
        except (OSError, ValueError) as error:
            raise DistillError(
                f"the scheduler of '{self.model}' cannot be read: {error}. Say 'path' and 'kind'."
            ) from error
        return dict(found)

    def _process(self) -> tuple[GaussianPath, str]:
        path, kind = schedulers.read(self._scheduler())
        if self.path and self.path != "discrete":
            path = PATHS[self.path]()
        elif self.path == "discrete" and not isinstance(path, Discrete):
            path = Discrete.scaled_linear()
        return path, self.kind or kind

    def _shift(self) -> float:
        return float(self._scheduler().get("shift") or 1.0) if isinstance(self._process()[0], Flow) else 1.0

    def exports(self) -> dict[str, Any]:
        return {**super().exports(), "diffusers": self._export_diffusers}

    def _export_diffusers(self, denoiser: Denoiser, sampler: Any, folder: Path) -> list[Path]:
        """Network and scheduler in diffusers' layout, the sampler beside them."""
        net: Any = denoiser.network.get_submodule("net")
        if denoiser.scalars:
            raise DistillError(
                f"diffusers has no place for the inputs {', '.join(denoiser.scalars)}: export to safetensors"
            )
        schedulers.write(denoiser.path, denoiser.kind, sampler, folder / "scheduler")
        net.save_pretrained(folder / self.subfolder)
        about = folder / "sampler.json"
        about.write_text(json.dumps(sampler.model_dump(mode="json"), indent=1) + "\n")
        return [folder / self.subfolder, folder / "scheduler", about]


class UNet2D(DiffusersNetwork):
    """`UNet2DModel`: pictures or latents, with or without a class label; the null label is the last."""

    example: ClassVar[dict[str, Any]] = {
        "config": {
            "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 16], "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
            "norm_num_groups": 4, "attention_head_dim": 4, "num_class_embeds": 3,
        }
    }  # fmt: skip
    network_class: ClassVar[str] = "UNet2DModel"
    subfolder: ClassVar[str] = "unet"
    sites: ClassVar[tuple[str, ...]] = ("time_embedding",)

    @staticmethod
    def call(net: nn.Module, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        out: Tensor = net(x, t, class_labels=cond.get("label"), return_dict=False)[0]
        return out

    def null(self, net: Any) -> dict[str, Any]:
        classes = net.config.num_class_embeds
        return {"label": classes - 1} if classes else {}

    def taps(self, net: Any) -> tuple[str, ...]:
        return ("net.mid_block",)


class UNet2DCondition(DiffusersNetwork):
    """`UNet2DConditionModel`: Stable Diffusion 1, 2 and XL. Conditions: `text`, and XL's `pooled`, `sizes`."""

    example: ClassVar[dict[str, Any]] = {
        "tokens": 4,
        "config": {
            "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "cross_attention_dim": 16,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4, "attention_head_dim": 2,
        },
    }  # fmt: skip
    network_class: ClassVar[str] = "UNet2DConditionModel"
    subfolder: ClassVar[str] = "unet"
    sites: ClassVar[tuple[str, ...]] = ("time_embedding",)
    tokens: int = 77
    """Length of the text."""

    @staticmethod
    def call(net: nn.Module, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        added = {"text_embeds": cond["pooled"], "time_ids": cond["sizes"]} if "pooled" in cond else None
        out: Tensor = net(x, t, cond["text"], added_cond_kwargs=added, return_dict=False)[0]
        return out

    def null(self, net: Any) -> dict[str, Any]:
        return {"text": torch.zeros(self.tokens, net.config.cross_attention_dim)}

    def taps(self, net: Any) -> tuple[str, ...]:
        return ("net.mid_block",)


class DiT(DiffusersNetwork):
    """`DiTTransformer2DModel`: class-conditional transformers; the null label is the number of classes."""

    example: ClassVar[dict[str, Any]] = {
        "config": {
            "sample_size": 8, "in_channels": 1, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2,
            "num_embeds_ada_norm": 3, "norm_num_groups": 1,
        }
    }  # fmt: skip
    network_class: ClassVar[str] = "DiTTransformer2DModel"
    subfolder: ClassVar[str] = "transformer"

    def build(self) -> Denoiser:
        from diffusers.models.embeddings import LabelEmbedding

        denoiser = super().build()
        for part in denoiser.modules():
            if isinstance(part, LabelEmbedding):
                part.dropout_prob = 0.0  # conditions are dropped by losses and guidance, not behind their backs
        return denoiser

    @staticmethod
    def call(net: nn.Module, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        out: Tensor = net(x, timestep=t, class_labels=cond["label"], return_dict=False)[0]
        return out[:, : x.shape[1]]  # checkpoints with a learnt variance say it after the mean

    def null(self, net: Any) -> dict[str, Any]:
        return {"label": net.config.num_embeds_ada_norm}

    def scalar_sites(self, net: Any) -> tuple[str, ...]:
        return tuple(f"transformer_blocks.{index}.norm1.emb" for index in range(len(net.transformer_blocks)))

    def taps(self, net: Any) -> tuple[str, ...]:
        return (f"net.transformer_blocks.{len(net.transformer_blocks) // 2}",)


class MMDiT(DiffusersNetwork):
    """`SD3Transformer2DModel`: joint text-image transformers. Conditions: `text` and `pooled`."""

    example: ClassVar[dict[str, Any]] = {
        "tokens": 4,
        "config": {
            "sample_size": 8, "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
            "attention_head_dim": 8, "joint_attention_dim": 16, "caption_projection_dim": 16,
            "pooled_projection_dim": 8, "pos_embed_max_size": 8,
        },
    }  # fmt: skip
    network_class: ClassVar[str] = "SD3Transformer2DModel"
    subfolder: ClassVar[str] = "transformer"
    sites: ClassVar[tuple[str, ...]] = ("time_text_embed",)
    tokens: int = 77
    """Length of the text."""

    @staticmethod
    def call(net: nn.Module, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        out: Tensor = net(x, cond["text"], cond["pooled"], t, return_dict=False)[0]
        return out

    def null(self, net: Any) -> dict[str, Any]:
        text = torch.zeros(self.tokens, net.config.joint_attention_dim)
        return {"text": text, "pooled": torch.zeros(net.config.pooled_projection_dim)}

    def taps(self, net: Any) -> tuple[str, ...]:
        return (f"net.transformer_blocks.{len(net.transformer_blocks) // 2}.attn",)


def attention_maps(features: Mapping[str, Tensor], name: str, heads: int) -> Tensor:
    """Attention probabilities [B, heads, queries, keys] of a diffusers attention layer.

    Ask `predict` for the taps `name + ".to_q"` and `name + ".to_k"`: what they said is all that a map needs.
    """
    query, key = (features[f"{name}.{part}"].unflatten(2, (heads, -1)).transpose(1, 2) for part in ("to_q", "to_k"))
    return (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(-1)


class PixArt(DiffusersNetwork):
    """`PixArtTransformer2DModel`: transformers that look at the text across. Condition: `text`."""

    example: ClassVar[dict[str, Any]] = {
        "tokens": 4,
        "config": {
            "sample_size": 8, "in_channels": 4, "out_channels": 4, "num_layers": 2, "num_attention_heads": 2,
            "attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12, "norm_num_groups": 1,
            "use_additional_conditions": False,
        },
    }  # fmt: skip
    network_class: ClassVar[str] = "PixArtTransformer2DModel"
    subfolder: ClassVar[str] = "transformer"
    sites: ClassVar[tuple[str, ...]] = ("adaln_single.emb.timestep_embedder",)
    tokens: int = 120
    """Length of the text."""
    guidance: float = 1.0
    """w of the teacher's own sampler."""
    encoder: Literal["", "minilm", "wordllama"] = ""
    """Who made the text that it was trained with, where that is a package's encoder."""

    @staticmethod
    def call(net: nn.Module, x: Tensor, t: Tensor, cond: Conditions) -> Tensor:
        size = {"resolution": cond.get("resolution"), "aspect_ratio": cond.get("aspect_ratio")}
        out: Tensor = net(x, cond["text"], t, added_cond_kwargs=size, return_dict=False)[0]
        return out[:, : x.shape[1]]  # checkpoints with a learnt variance say it after the mean

    def null(self, net: Any) -> dict[str, Any]:
        return {"text": torch.zeros(self.tokens, net.config.caption_channels)}

    def taps(self, net: Any) -> tuple[str, ...]:
        return (f"net.transformer_blocks.{len(net.transformer_blocks) // 2}",)

    def sampler(self) -> Sampler:
        return super().sampler().model_copy(update={"guidance": self.guidance})

    def encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return ENCODERS[self.encoder](tokens=self.tokens)(prompts) if self.encoder else super().encode(prompts)
