"""What diffusers' text-to-image pipelines do with their network, as data: one row a family.

A row says where each named condition goes, what the network is fed for a time, how latents are packed, what
`encode_prompt` returns and what guidance is called. Everything else is read from the folder. `docs/families.md` lists
the rows with what was tried; a plugin adds one with a subclass of `distill.image.pipeline.Pipeline` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from distill.image import schedulers
from distill.image.asked import Setting

Conditions = Mapping[str, Any]
Arguments = dict[str, Any]
Ask = Callable[..., Tensor]
"""How a network is called: `ask(family, net, x, t, cond, setting)`."""


def _plain(t: Tensor) -> Tensor:
    return t


def _fraction(t: Tensor) -> Tensor:
    return t / 1000


def _reversed(t: Tensor) -> Tensor:
    return 1 - t / 1000


def _nothing(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    return {}


@dataclass(frozen=True)
class Family:
    """How one pipeline class of diffusers asks its network.

    Attributes:
        encoded: what `encode_prompt` returns, in order: names of conditions, of null values with a minus before them,
            and an empty name for what nobody needs.
        arguments: the network's argument that each condition goes to.
        network: the folder of the network, and the pipeline's name for it.
        time: what the network is fed for a native time (thousandths, or entries of the table of betas).
        time_argument: its name for that.
        channels: what its config calls the number of channels that it takes.
        sign: factor of the output, −1 where it says minus the velocity.
        patch: where positive, patches of so many latents a side are tokens of one sequence.
        fold: latents of the decoder per side of one of the network's.
        extra: further arguments, from network, state, conditions and setting.
        ask: how the network is called where arguments do not say it: `ask(family, net, x, t, cond, setting)`.
        ragged: texts differ in length: they are padded to one, under a mask.
        encode: how prompts are encoded where `encode_prompt` has to be called more than once.
        decoder: the folder of the decoder; none in pixel space.
        decode: latents to pictures, and `code` pictures to latents, for a decoder.
        laid: latents [B, C, H, W] as the pipeline's call takes them; packed, where patches are 2×2, if None.
        cfg: what the pipeline calls the weight of classifier-free guidance.
        cfg_offset: w minus that weight.
        restore: what its guidance does to what it combined, given what it says with the condition.
        embedded: what it calls the weight that a guidance-distilled network is fed.
        kept: parts that the pipeline cannot be made without, be it for text alone.
        variance: whether the pipeline takes a learnt variance off itself, by its scheduler's word.
        told: whether its call can be told at which times to sample.
        scaled: whether it lets its scheduler scale what the network gets.
        options: what its call needs besides, to do nothing on its own account.
        shift: timestep shift of the pipeline's own sampler, from its scheduler's config and the number of patches.
        side: latents per side where neither recipe nor network says it.
        taps: modules whose outputs serve a discriminator; `{}` is the middle of a list.
        sites: modules whose output an extra scalar input is added to.
    """

    encoded: tuple[str, ...]
    arguments: Mapping[str, str] = field(default_factory=lambda: {"text": "encoder_hidden_states"})
    network: str = "transformer"
    time: Callable[[Tensor], Tensor] = _plain
    time_argument: str = "timestep"
    channels: str = "in_channels"
    sign: int = 1
    patch: int = 0
    fold: int = 1
    extra: Callable[[Any, Tensor, Conditions, Setting], Arguments] = _nothing
    ask: Ask | None = None
    ragged: bool = False
    encode: Callable[..., Mapping[str, Any]] | None = None
    decoder: str = "vae"
    decode: Callable[[Any, Tensor], Tensor] = field(default_factory=lambda: scaled)
    code: Callable[[Any, Tensor], Tensor] = field(default_factory=lambda: unscaled)
    laid: Callable[[Tensor], Tensor] | None = None
    cfg: str = "guidance_scale"
    cfg_offset: float = 0.0
    restore: Callable[[Tensor, Tensor], Tensor] | None = None
    embedded: str = ""
    kept: tuple[str, ...] = ()
    variance: bool = False
    told: bool = True
    scaled: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    shift: Callable[[Mapping[str, Any], int], float] = schedulers.shift
    side: int = 128
    taps: tuple[str, ...] = ("transformer_blocks.{}",)
    sites: tuple[str, ...] = ()

    def __call__(self, net: Any, x: Tensor, t: Tensor, cond: Conditions, setting: Setting) -> Tensor:
        """What the network says of states [B, C, H, W] at native times [B]."""
        said = (self.ask or ask)(self, net, x, t, cond, setting)
        return self.sign * said[:, : x.shape[1]]  # networks with a learnt variance say it after the mean


def ask(family: Family, net: Any, x: Tensor, t: Tensor, cond: Conditions, setting: Setting) -> Tensor:
    """Call a network whose arguments say it all."""
    given = {argument: cond[name].contiguous() for name, argument in family.arguments.items()}
    given |= family.extra(net, x, cond, setting) | {family.time_argument: family.time(t)}
    patch = family.patch
    said: Tensor = net(pack(x, patch) if patch else x, **given, return_dict=False)[0]
    return unpack(said, x, patch) if patch else said


def pack(x: Tensor, patch: int = 2) -> Tensor:
    """Latents [B, C, H, W] as a sequence of patches [B, HW/p², p²C]."""
    return pixel_unshuffle(x, patch).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, like: Tensor, patch: int = 2) -> Tensor:
    """The inverse of `pack`."""
    height, width = like.shape[2] // patch, like.shape[3] // patch
    return pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (height, width)), patch)


# ---------------------------------------------------------------- decoders


def scaled(vae: Any, z: Tensor) -> Tensor:
    """Pictures of latents of unit scale (Rombach et al. 2022, arXiv:2112.10752, appendix G)."""
    mean, std = (_channels(vae, name, z) for name in ("latents_mean", "latents_std"))
    shift = vae.config.get("shift_factor") or 0.0
    return vae.decode(z * std / vae.config.scaling_factor + mean + shift, return_dict=False)[0]


def unscaled(vae: Any, pictures: Tensor) -> Tensor:
    """Latents of unit scale of pictures."""
    mean, std = (_channels(vae, name, pictures) for name in ("latents_mean", "latents_std"))
    shift = vae.config.get("shift_factor") or 0.0
    return (_encoded(vae, pictures) - mean - shift) / std * vae.config.scaling_factor


def _encoded(vae: Any, pictures: Tensor) -> Tensor:
    said = vae.encode(pictures, return_dict=False)[0]
    return said if isinstance(said, Tensor) else said.mode()


def _channels(vae: Any, name: str, like: Tensor) -> Tensor:
    """A statistic of the latents' channels; 0 or 1 where the decoder has none."""
    known = vae.config.get(name)
    value = [float(name.endswith("std"))] if known is None else known
    return torch.tensor(value, dtype=like.dtype, device=like.device).reshape(1, -1, *(1,) * (like.ndim - 2))


def one_frame(vae: Any, z: Tensor) -> Tensor:
    """Pictures by a decoder of videos, which has a mean and a standard deviation for each channel."""
    z = z[:, :, None]
    mean, std = (_channels(vae, name, z) for name in ("latents_mean", "latents_std"))
    return vae.decode(z * std + mean, return_dict=False)[0][:, :, 0]


def scaled_only(vae: Any, z: Tensor) -> Tensor:
    """Pictures of latents of unit scale, by a pipeline that leaves its decoder's shift out."""
    return vae.decode(z / vae.config.scaling_factor, return_dict=False)[0]


def of_scaled_only(vae: Any, pictures: Tensor) -> Tensor:
    """Such latents of pictures."""
    return _encoded(vae, pictures) * vae.config.scaling_factor


def unscaled_codes(vae: Any, z: Tensor) -> Tensor:
    """Pictures of what an encoder says, as it says it, before it is quantised."""
    return vae.decode(z, force_not_quantize=True, return_dict=False)[0]


def of_one_frame(vae: Any, pictures: Tensor) -> Tensor:
    """Latents of pictures by an encoder of videos."""
    z = _encoded(vae, pictures[:, :, None])
    mean, std = (_channels(vae, name, z) for name in ("latents_mean", "latents_std"))
    return ((z - mean) / std)[:, :, 0]


def folded(vae: Any, z: Tensor) -> Tensor:
    """Pictures of latents whose 2×2 patches are channels, normalised by the decoder's running statistics."""
    mean, std = _running(vae, z)
    return vae.decode(pixel_shuffle(z * std + mean, 2), return_dict=False)[0]


def of_folded(vae: Any, pictures: Tensor) -> Tensor:
    """Such latents of pictures."""
    mean, std = _running(vae, pictures)
    return (pixel_unshuffle(_encoded(vae, pictures), 2) - mean) / std


def _running(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    mean, variance = (each.to(like).reshape(1, -1, 1, 1) for each in (vae.bn.running_mean, vae.bn.running_var))
    return mean, (variance + vae.config.batch_norm_eps).sqrt()


# ---------------------------------------------------------------- further arguments


def _pixels(x: Tensor, setting: Setting) -> tuple[int, int]:
    return x.shape[2] * setting.factor, x.shape[3] * setting.factor


def _rows(values: Any, x: Tensor) -> Tensor:
    return torch.tensor([values], dtype=x.dtype, device=x.device).repeat(len(x), 1)


def _xl_sizes(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    """Original size, crop and target size (Podell et al. 2023, arXiv:2307.01952, section 2.2)."""
    size = _pixels(x, setting)
    sizes = cond.get("sizes", _rows((*size, 0, 0, *size), x))
    return {"added_cond_kwargs": {"text_embeds": cond["pooled"], "time_ids": sizes}}


def _pixart(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    size = _pixels(x, setting)
    if not net.use_additional_conditions:
        return {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    return {"added_cond_kwargs": {"resolution": _rows(size, x), "aspect_ratio": _rows((size[0] / size[1],), x)}}


def _positions(x: Tensor, cond: Conditions) -> Arguments:
    """Rows and columns of the patches, and none for the text."""
    height, width = x.shape[2] // 2, x.shape[3] // 2
    places = torch.cartesian_prod(torch.arange(1), torch.arange(height), torch.arange(width)).to(x)
    return {"img_ids": places, "txt_ids": torch.zeros(cond["text"].shape[1], 3).to(x)}


def _embedded(net: Any, x: Tensor, setting: Setting) -> Tensor | None:
    return torch.full((len(x),), setting.guidance).to(x.device) if net.config.guidance_embeds else None


def _flux(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    return _positions(x, cond) | {"guidance": _embedded(net, x, setting)}


def _bria(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    return _positions(x, cond)


def _qwen(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    shape = (1, x.shape[2] // 2, x.shape[3] // 2)
    return {"img_shapes": [[shape]] * len(x), "guidance": _embedded(net, x, setting)}


def _chroma(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    picture = torch.ones(len(x), x.shape[2] * x.shape[3] // 4, device=x.device)
    return _positions(x, cond) | {"attention_mask": torch.cat([cond["mask"].to(picture), picture], 1)}


def _cogview(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    size = _rows(_pixels(x, setting), x)
    return {"original_size": size, "target_size": size, "crop_coords": torch.zeros_like(size)}


def _ovis(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    said = _positions(x, cond)
    said["txt_ids"][:, 1:] = torch.arange(len(said["txt_ids"])).to(x)[:, None]
    return said


def _klein(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    ones = (torch.arange(1),) * 3
    text = torch.cartesian_prod(*ones, torch.arange(cond["text"].shape[1]))
    places = torch.cartesian_prod(ones[0], torch.arange(x.shape[2]), torch.arange(x.shape[3]), ones[0])
    ids = {"txt_ids": text, "img_ids": places}
    said = {name: value.to(x).expand(len(x), -1, -1) for name, value in ids.items()}
    return said | {"guidance": _embedded(net, x, setting)}


def _hunyuan(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    patch = net.config.patch_size
    grid = (x.shape[2] // patch, x.shape[3] // patch)
    crop = get_resize_crop_region_for_grid(grid, 64 // patch)
    rotary: Any = get_2d_rotary_pos_embed(net.inner_dim // net.num_heads, crop, grid, device=x.device, output_type="pt")
    return {
        "image_meta_size": _rows((1024, 1024, *_pixels(x, setting), 0, 0), x),
        "style": torch.zeros(len(x), dtype=torch.long, device=x.device), "image_rotary_emb": rotary,
    }  # fmt: skip


# ---------------------------------------------------------------- guidance rules


def _row_norms(guided: Tensor, plain: Tensor) -> Tensor:
    """What was combined, with the norm of each last axis that the conditional output has."""
    return guided * (plain.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))


def _patch_norms(guided: Tensor, plain: Tensor) -> Tensor:
    """The same patch by patch, over their channels and 2×2 places."""
    return unpack(_row_norms(pack(guided), pack(plain)), guided)


# ---------------------------------------------------------------- calls and encoders of their own


def _ask_zimage(family: Family, net: Any, x: Tensor, t: Tensor, cond: Conditions, setting: Setting) -> Tensor:
    text = [row[mask.bool()] for row, mask in zip(cond["text"], cond["mask"], strict=True)]
    said = net(list(x[:, :, None].unbind()), family.time(t), text, return_dict=False)[0]
    return torch.stack(said)[:, :, 0]


def _ask_hidream(family: Family, net: Any, x: Tensor, t: Tensor, cond: Conditions, setting: Setting) -> Tensor:
    """In training its experts let gradient through, and the network itself gives out patches."""
    net.train()
    net.training = False
    return ask(family, net, x, t, cond, setting)


def _by_length(inner: Ask, beyond: int = 0) -> Ask:
    """Texts of one length at a time, for a network that takes no mask, or does not heed it everywhere.

    It gets so many tokens `beyond` a text's own; a text without any is given whole.
    """

    def by_length(family: Family, net: Any, x: Tensor, t: Tensor, cond: Conditions, setting: Setting) -> Tensor:
        lengths, said = cond["mask"].sum(1).long(), torch.empty_like(x)
        for length in sorted(set(lengths.tolist())):
            rows = (lengths == length).nonzero().flatten()
            own = {name: value[rows] for name, value in cond.items()}
            end = length + beyond if length else None
            own |= {name: own[name][:, :end] for name in ("text", "mask")}
            said = said.index_copy(0, rows, inner(family, net, x[rows], t[rows], own, setting))
        return said

    return by_length


def _ask_kandinsky5(family: Family, net: Any, x: Tensor, t: Tensor, cond: Conditions, setting: Setting) -> Tensor:
    places = [torch.arange(n, device=x.device) for n in (1, x.shape[2] // 2, x.shape[3] // 2)]
    frames = net(
        hidden_states=framed(x), encoder_hidden_states=cond["text"], timestep=t, pooled_projections=cond["pooled"],
        visual_rope_pos=places, text_rope_pos=torch.arange(cond["text"].shape[1], device=x.device), return_dict=False,
    )  # fmt: skip
    said: Tensor = frames[:, 0].movedim(-1, 1)
    return said


def framed(x: Tensor) -> Tensor:
    """Latents [B, C, H, W] as films of one frame, channels last: [B, 1, H, W, C]."""
    return x.movedim(1, -1)[:, None]


def _encode_hidream(call: Callable[..., Any], pipe: Any) -> Mapping[str, Any]:
    names = ("text", "-text", "llama", "-llama", "pooled", "-pooled")
    said = dict(zip(names, call(dtype=torch.float32), strict=True))
    return said | {name: said[name].transpose(0, 1) for name in ("llama", "-llama")}  # layers came first


def _hidream(net: Any, x: Tensor, cond: Conditions, setting: Setting) -> Arguments:
    return {"encoder_hidden_states_llama3": cond["llama"].transpose(0, 1)}


def _largest(config: Mapping[str, Any], patches: int) -> float:
    """The shift of the largest picture, whatever the size."""
    return schedulers.shift(config, 4096)


def _encode_hunyuan(call: Callable[..., Any], pipe: Any) -> Mapping[str, Any]:
    names = ("text", "-text", "mask", "-mask")
    lengths = (77, 256)
    found: dict[str, Any] = {}
    for index, length in enumerate(lengths):
        said = call(max_sequence_length=length, text_encoder_index=index, dtype=torch.float32)
        found |= {name + "_2" * index: value for name, value in zip(names, said, strict=True)}
    return found


UNET = ("mid_block",)
MASKED = {"text": "encoder_hidden_states", "mask": "encoder_attention_mask"}
POOLED = {"text": "encoder_hidden_states", "pooled": "pooled_projections"}
BOTH = ("text", "-text")
BOTH_POOLED = ("text", "-text", "pooled", "-pooled")
BOTH_MASKED = ("text", "mask", "-text", "-mask")
WHOLE = {"use_resolution_binning": False}

FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family(BOTH, network="unet", side=64, taps=UNET, sites=("time_embedding",)),
    "StableDiffusionXLPipeline": Family(
        BOTH_POOLED, network="unet", extra=_xl_sizes, taps=UNET, sites=("time_embedding",)
    ),
    "StableDiffusion3Pipeline": Family(
        BOTH_POOLED, POOLED, taps=("transformer_blocks.{}.attn",), sites=("time_text_embed",)
    ),
    "FluxPipeline": Family(
        ("text", "pooled", ""), POOLED, time=_fraction, patch=2, extra=_flux, cfg="true_cfg_scale",
        embedded="guidance_scale", sites=("time_text_embed",),
    ),
    "PixArtAlphaPipeline": Family(BOTH_MASKED, MASKED, extra=_pixart, options=WHOLE),
    "PixArtSigmaPipeline": Family(BOTH_MASKED, MASKED, extra=_pixart, options=WHOLE),
    "SanaPipeline": Family(BOTH_MASKED, MASKED, options=WHOLE, side=32),
    "QwenImagePipeline": Family(
        ("text", "mask"), MASKED | {"mask": "encoder_hidden_states_mask"}, time=_fraction, patch=2, extra=_qwen,
        ragged=True, decode=one_frame, code=of_one_frame, cfg="true_cfg_scale", restore=_patch_norms,
        embedded="guidance_scale",
    ),
    "ZImagePipeline": Family(
        BOTH, time=_reversed, sign=-1, ask=_ask_zimage, ragged=True, cfg_offset=1.0, taps=("layers.{}",)
    ),
    "HunyuanDiTPipeline": Family(
        (), {"text": "encoder_hidden_states", "mask": "text_embedding_mask", "text_2": "encoder_hidden_states_t5",
             "mask_2": "text_embedding_mask_t5"},
        extra=_hunyuan, encode=_encode_hunyuan, options=WHOLE, taps=("blocks.{}",),
    ),
    "AuraFlowPipeline": Family(
        ("text", "", "-text", ""), time=_fraction, taps=("single_transformer_blocks.{}",), side=64
    ),
    "Lumina2Pipeline": Family(
        BOTH_MASKED, MASKED, time=_reversed, sign=-1, restore=_row_norms, taps=("layers.{}",)
    ),
    "ChromaPipeline": Family(
        ("text", "", "mask", "-text", "", "-mask"), time=_fraction, patch=2, extra=_chroma
    ),
    "OvisImagePipeline": Family(("text", "-text", "", ""), time=_fraction, patch=2, extra=_ovis),
    "Flux2KleinPipeline": Family(
        ("text", ""), time=_fraction, patch=1, fold=2, extra=_klein, decode=folded, code=of_folded, side=64
    ),
    "CogView3PlusPipeline": Family(BOTH, extra=_cogview),
    "Flux2Pipeline": Family(
        ("text", ""), time=_fraction, patch=1, fold=2, extra=_klein, decode=folded, code=of_folded, side=64,
        embedded="guidance_scale",
    ),
    "HiDreamImagePipeline": Family(
        (), {"text": "encoder_hidden_states_t5", "pooled": "pooled_embeds"}, time_argument="timesteps", sign=-1,
        extra=_hidream, ask=_ask_hidream, encode=_encode_hidream, shift=_largest, taps=("single_stream_blocks.{}",),
    ),
    "Kandinsky3Pipeline": Family(
        ("text", "-text", "mask", "-mask"), MASKED, network="unet", ask=_by_length(ask, 1), decoder="movq",
        decode=unscaled_codes, code=_encoded, cfg_offset=1.0, scaled=False, taps=("down_blocks.{}",),
        sites=("time_embedding",),
    ),
    "Kandinsky5T2IPipeline": Family(
        ("text", "pooled", ""), channels="in_visual_dim", ask=_by_length(_ask_kandinsky5), ragged=True,
        decode=scaled_only, code=of_scaled_only, laid=framed, taps=("visual_transformer_blocks.{}",),
    ),
    "BriaPipeline": Family(("text", "-text", ""), patch=2, extra=_bria, kept=("transformer", "vae"), told=False),
    "IFPipeline": Family(BOTH, network="unet", decoder="", variance=True, taps=UNET, sites=("time_embedding",)),
}  # fmt: skip
"""The families that this package knows, by the name of their pipeline."""
