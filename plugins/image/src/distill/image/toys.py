"""Pipelines of every family at toy size: random weights, tokenisers of one token a character, nothing downloaded.

Tests and `docs/families.py` save them and go the whole way with them: load, train, export, load again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill.methods.pipelines import quiet

WORDS = [chr(code) for code in range(32, 127)]
TEMPLATE = "Please draw with great care: {% for message in messages %}{{ message['content'] }}{% endfor %}"
SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 128, "max_position_embeddings": 2048, "pad_token_id": 0,
    "bos_token_id": 3, "eos_token_id": 1,
}  # fmt: skip
"""Sizes of a language model."""
SIZE = 64
"""Pixels per side of a toy's pictures."""
SIZES = {"HiDreamImagePipeline": 128, "Kandinsky5T2IPipeline": 128}
"""The same of pipelines that know one size only."""
LINEAR: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """A toy pipeline of a family, saved as any other."""
    import diffusers

    torch.manual_seed(seed)
    with quiet():
        parts = TOYS[name]()
        _disturb(parts["unet" if "unet" in parts else "transformer"])
        pipe: Any = getattr(diffusers, name)(**parts)
        pipe.save_pretrained(folder)
    return folder


def _disturb(net: Any) -> None:
    """What a network starts with at zero would hide what comes before it."""
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


# ---------------------------------------------------------------- text


def tokenizer(**options: Any) -> Any:
    """One token a character."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", "<s>", *WORDS])}
    plain: Any = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    plain.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    named = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}
    return PreTrainedTokenizerFast(tokenizer_object=plain, chat_template=TEMPLATE, **(named | options))


def clip_tokenizer() -> Any:
    """CLIP's, without a single merge."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77)


def clip(projection: bool = False, **options: Any) -> Any:
    """CLIP's text encoder."""
    import transformers

    shape: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 1, "projection_dim": 16,
        "hidden_act": "gelu",
    }  # fmt: skip
    config = transformers.CLIPTextConfig(**(shape | options))
    kind: Any = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
    return kind(config).eval()


def t5(kind: str = "T5", width: int = 16) -> Any:
    """T5's encoder."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        d_model=width, d_kv=8, d_ff=16, num_layers=2, num_heads=2, vocab_size=128, feed_forward_proj="gated-gelu"
    )
    return getattr(transformers, f"{kind}EncoderModel")(config).eval()


def language(kind: str, **options: Any) -> Any:
    """A language model that serves as a text encoder, by its class in transformers."""
    import transformers

    model = getattr(transformers, kind)
    return model(model.config_class(**(SMALL | options))).eval()


# ---------------------------------------------------------------- decoders and schedulers


def kl(channels: int = 4, **options: Any) -> Any:
    """An autoencoder that halves a picture three times."""
    return network(
        "AutoencoderKL",
        **{"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": channels,
           "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
           "layers_per_block": 1, "sample_size": 64, "shift_factor": 0.1} | options,
    )  # fmt: skip


def flat_kl() -> Any:
    """An autoencoder that keeps a picture's size."""
    return kl(block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",))


def flow(**options: Any) -> Any:
    """A scheduler of flow models."""
    import diffusers

    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def ddpm(kind: str = "DDIMScheduler", **options: Any) -> Any:
    """A scheduler with betas."""
    import diffusers

    return getattr(diffusers, kind)(**(LINEAR | options))


def network(kind: str, **options: Any) -> Any:
    """A network of diffusers, in use."""
    import diffusers

    return getattr(diffusers, kind)(**options).eval()


# ---------------------------------------------------------------- families


def _unet(**options: Any) -> Any:
    return network(
        "UNet2DConditionModel",
        **{"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "cross_attention_dim": 16,
           "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "norm_num_groups": 4, "attention_head_dim": 2,
           "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")} | options,
    )  # fmt: skip


def _stable_diffusion(kind: str = "epsilon") -> dict[str, Any]:
    return {
        "unet": _unet(), "vae": kl(shift_factor=None), "text_encoder": clip(), "tokenizer": clip_tokenizer(),
        "scheduler": ddpm("PNDMScheduler", prediction_type=kind, skip_prk_steps=True, steps_offset=1),
        "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False,
    }  # fmt: skip


def _xl() -> dict[str, Any]:
    unet = _unet(
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4, use_linear_projection=True,
    )  # fmt: skip
    return {
        "unet": unet, "vae": kl(shift_factor=None), "text_encoder": clip(), "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projection=True), "tokenizer_2": clip_tokenizer(),
        "scheduler": ddpm("EulerDiscreteScheduler"),
    }  # fmt: skip


def _sd3() -> dict[str, Any]:
    net = network(
        "SD3Transformer2DModel", sample_size=8, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2,
        attention_head_dim=8, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=8,
    )  # fmt: skip
    clips = {name: clip(projection=True) for name in ("text_encoder", "text_encoder_2")}
    return {
        "transformer": net, "vae": kl(), **clips, "text_encoder_3": t5(width=32), "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(), "tokenizer_3": tokenizer(), "scheduler": flow(shift=3.0),
    }  # fmt: skip


def _flux() -> dict[str, Any]:
    net = network(
        "FluxTransformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return {
        "transformer": net, "vae": kl(), "text_encoder": clip(), "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5(), "tokenizer_2": tokenizer(), "scheduler": flow(use_dynamic_shifting=True),
    }  # fmt: skip


def _pixart(**options: Any) -> dict[str, Any]:
    net = network(
        "PixArtTransformer2DModel",
        **{"sample_size": 8, "in_channels": 4, "out_channels": 8, "num_layers": 2, "num_attention_heads": 2,
           "attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 16, "norm_num_groups": 1,
           "use_additional_conditions": False} | options,
    )  # fmt: skip
    scheduler = ddpm("DPMSolverMultistepScheduler", beta_schedule="linear", beta_start=1e-4, beta_end=0.02)
    return {"transformer": net, "vae": kl(shift_factor=None), "text_encoder": t5(), "tokenizer": tokenizer(),
            "scheduler": scheduler}  # fmt: skip


def _sana() -> dict[str, Any]:
    net = network(
        "SanaTransformer2DModel", sample_size=2, in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2,
        attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=16,
    )  # fmt: skip
    vae = network(
        "AutoencoderDC", latent_channels=4, attention_head_dim=2, encoder_block_types="ResBlock",
        decoder_block_types="ResBlock", encoder_block_out_channels=(8,) * 6, decoder_block_out_channels=(8,) * 6,
        encoder_qkv_multiscales=((),) * 6, decoder_qkv_multiscales=((),) * 6, encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6, upsample_block_type="interpolate",
        downsample_block_type="conv", decoder_norm_types="rms_norm", decoder_act_fns="silu", scaling_factor=0.41,
    )  # fmt: skip
    scheduler = ddpm(
        "DPMSolverMultistepScheduler", prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return {"transformer": net, "vae": vae, "text_encoder": language("Gemma2Model"), "tokenizer": tokenizer(),
            "scheduler": scheduler}  # fmt: skip


def _qwen() -> dict[str, Any]:
    import transformers

    net = network(
        "QwenImageTransformer2DModel", in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    vae = network(
        "AutoencoderKLQwenImage", base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        latents_mean=[0.1] * 4, latents_std=[1.5] * 4,
    )  # fmt: skip
    rope = {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2]}
    config = transformers.Qwen2_5_VLConfig(
        text_config=SMALL | {"rope_scaling": rope},
        vision_config={"depth": 1, "hidden_size": 8, "num_heads": 2, "out_hidden_size": 16, "intermediate_size": 8},
    )
    encoder = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    return {"transformer": net, "vae": vae, "text_encoder": encoder, "tokenizer": tokenizer(),
            "scheduler": flow(use_dynamic_shifting=True, shift_terminal=0.02)}  # fmt: skip


def _zimage() -> dict[str, Any]:
    net = network(
        "ZImageTransformer2DModel", in_channels=4, dim=16, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2,
        cap_feat_dim=16, axes_dims=[2, 2, 4], axes_lens=[1024, 32, 32],
    )  # fmt: skip
    return {"transformer": net, "vae": kl(), "text_encoder": language("Qwen3Model"), "tokenizer": tokenizer(),
            "scheduler": flow(shift=3.0)}  # fmt: skip


def _hunyuan() -> dict[str, Any]:
    import transformers

    net = network(
        "HunyuanDiT2DModel", sample_size=8, in_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=8,
        patch_size=2, cross_attention_dim=16, cross_attention_dim_t5=16, hidden_size=16, pooled_projection_dim=16,
        text_len=77, text_len_t5=256, activation_fn="gelu-approximate",
    )  # fmt: skip
    bert: Any = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, vocab_size=128
    )
    return {
        "transformer": net, "vae": kl(shift_factor=None), "text_encoder": transformers.BertModel(bert).eval(),
        "tokenizer": tokenizer(), "text_encoder_2": t5(), "tokenizer_2": tokenizer(),
        "scheduler": ddpm(prediction_type="v_prediction"), "safety_checker": None, "feature_extractor": None,
        "requires_safety_checker": False,
    }  # fmt: skip


def _auraflow() -> dict[str, Any]:
    net = network(
        "AuraFlowTransformer2DModel", sample_size=8, in_channels=4, out_channels=4, num_mmdit_layers=1,
        num_single_dit_layers=1, num_attention_heads=2, attention_head_dim=8, joint_attention_dim=16,
        caption_projection_dim=16, pos_embed_max_size=16,
    )  # fmt: skip
    return {"transformer": net, "vae": kl(shift_factor=None), "text_encoder": t5("UMT5"), "tokenizer": tokenizer(),
            "scheduler": flow(shift=1.73)}  # fmt: skip


def _lumina2() -> dict[str, Any]:
    net = network(
        "Lumina2Transformer2DModel", sample_size=8, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1,
        num_attention_heads=3, num_kv_heads=1, multiple_of=2, axes_dim_rope=(2, 2, 4), axes_lens=(300, 32, 32),
        cap_feat_dim=16,
    )  # fmt: skip
    return {"transformer": net, "vae": kl(), "text_encoder": language("Gemma2Model"), "tokenizer": tokenizer(),
            "scheduler": flow(shift=6.0)}  # fmt: skip


def _chroma() -> dict[str, Any]:
    net = network(
        "ChromaTransformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 4, 8), approximator_num_channels=8,
        approximator_hidden_dim=16, approximator_layers=1,
    )  # fmt: skip
    return {"transformer": net, "vae": kl(), "text_encoder": t5(), "tokenizer": tokenizer(), "scheduler": flow()}


def _cogview3() -> dict[str, Any]:
    net = network(
        "CogView3PlusTransformer2DModel", sample_size=8, in_channels=4, out_channels=4, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, text_embed_dim=16, time_embed_dim=8, condition_dim=4,
        pos_embed_max_size=8,
    )  # fmt: skip
    scheduler = ddpm("CogVideoXDDIMScheduler", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    return {"transformer": net, "vae": kl(shift_factor=None), "text_encoder": t5(), "tokenizer": tokenizer(),
            "scheduler": scheduler}  # fmt: skip


def _ovis() -> dict[str, Any]:
    net = network(
        "OvisImageTransformer2DModel", in_channels=16, out_channels=16, num_layers=1, num_single_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    return {"transformer": net, "vae": kl(), "text_encoder": language("Qwen3Model"), "tokenizer": tokenizer(),
            "scheduler": flow(use_dynamic_shifting=True)}  # fmt: skip


def _klein() -> dict[str, Any]:
    net = network(
        "Flux2Transformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16,
        guidance_embeds=False,
    )  # fmt: skip
    vae = network(
        "AutoencoderKLFlux2", block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1,
    )  # fmt: skip
    torch.nn.init.normal_(vae.bn.running_mean)
    return {"transformer": net, "vae": vae, "text_encoder": language("Qwen3ForCausalLM", num_hidden_layers=28),
            "tokenizer": tokenizer(), "scheduler": flow(use_dynamic_shifting=True)}  # fmt: skip


def _flux2() -> dict[str, Any]:
    import transformers

    config = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**(SMALL | {"num_hidden_layers": 31})),
        vision_config=transformers.PixtralVisionConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        ),
    )
    net = network(
        "Flux2Transformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16,
    )  # fmt: skip
    encoder = transformers.Mistral3ForConditionalGeneration(config).eval()
    return _klein() | {"transformer": net, "text_encoder": encoder}


def _hidream() -> dict[str, Any]:
    net = network(
        "HiDreamImageTransformer2DModel", patch_size=2, in_channels=4, out_channels=4, num_layers=1,
        num_single_layers=1, attention_head_dim=8, num_attention_heads=2, caption_channels=[16, 16], text_emb_dim=32,
        axes_dims_rope=(4, 2, 2), llama_layers=[0, 1],
    )  # fmt: skip
    clips = {name: clip(projection=True, max_position_embeddings=248) for name in ("text_encoder", "text_encoder_2")}
    return {
        "transformer": net, **clips, "tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer(),
        "vae": flat_kl(),
        "text_encoder_3": t5(), "tokenizer_3": tokenizer(), "text_encoder_4": language("LlamaForCausalLM"),
        "tokenizer_4": tokenizer(), "scheduler": flow(shift=3.0),
    }  # fmt: skip


def _kandinsky3() -> dict[str, Any]:
    net = network(
        "Kandinsky3UNet", time_embedding_dim=16, groups=4, attention_head_dim=8, layers_per_block=2,
        block_out_channels=(8, 16, 32, 64), cross_attention_dim=16, encoder_hid_dim=16,
    )  # fmt: skip
    movq = network(
        "VQModel", block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, vq_embed_dim=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, num_vq_embeddings=8,
    )  # fmt: skip
    return {"unet": net, "movq": movq, "text_encoder": t5(), "tokenizer": tokenizer(), "scheduler": ddpm()}


def _kandinsky5() -> dict[str, Any]:
    net = network(
        "Kandinsky5Transformer3DModel", in_text_dim=16, in_text_dim2=16, time_dim=8, model_dim=16, ff_dim=16,
        num_text_blocks=1, num_visual_blocks=2, axes_dims=(2, 2, 4),
    )  # fmt: skip
    return _qwen() | {
        "transformer": net, "vae": flat_kl(), "text_encoder_2": clip(), "tokenizer_2": clip_tokenizer(),
        "scheduler": flow(shift=3.0),
    }  # fmt: skip


def _bria() -> dict[str, Any]:
    net = network(
        "BriaTransformer2DModel", in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, axes_dims_rope=[4, 4, 8],
    )  # fmt: skip
    return {"transformer": net, "vae": kl(), "text_encoder": t5(), "tokenizer": tokenizer(),
            "scheduler": flow(use_dynamic_shifting=True)}  # fmt: skip


def _deepfloyd() -> dict[str, Any]:
    return {
        "unet": _unet(in_channels=3, out_channels=6), "text_encoder": t5(), "tokenizer": tokenizer(),
        "scheduler": ddpm("DDPMScheduler", variance_type="learned_range"), "safety_checker": None,
        "feature_extractor": None, "watermarker": None, "requires_safety_checker": False,
    }  # fmt: skip


TOYS: dict[str, Callable[[], dict[str, Any]]] = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _xl,
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
    "SanaPipeline": _sana,
    "QwenImagePipeline": _qwen,
    "ZImagePipeline": _zimage,
    "HunyuanDiTPipeline": _hunyuan,
    "AuraFlowPipeline": _auraflow,
    "Lumina2Pipeline": _lumina2,
    "ChromaPipeline": _chroma,
    "OvisImagePipeline": _ovis,
    "Flux2KleinPipeline": _klein,
    "CogView3PlusPipeline": _cogview3,
    "Flux2Pipeline": _flux2,
    "HiDreamImagePipeline": _hidream,
    "Kandinsky3Pipeline": _kandinsky3,
    "Kandinsky5T2IPipeline": _kandinsky5,
    "BriaPipeline": _bria,
    "IFPipeline": _deepfloyd,
}
"""Parts of a toy pipeline, by the family's name."""
