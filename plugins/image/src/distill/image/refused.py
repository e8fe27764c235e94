"""Pipelines of diffusers that are no family here, and why: what is said to who names one as a teacher."""

from __future__ import annotations

import inspect
from typing import Any

TOKENS = "its network fills in discrete tokens, and a family here denoises latents or pixels"
CHAIN = "it is a chain of two diffusion models, a prior and a decoder, and a teacher is one network"
EMBEDDINGS = "it makes embeddings of pictures, and another pipeline makes pictures of those"
STUDENT = "it is a student of few steps itself, sampled by a rule of its own: name the one that it was distilled from"
OTHERS = "what it makes is no picture"
TWO = "it draws by an autoregressive model and a decoder, and a teacher is one denoiser"
UNWRITTEN = "no row has been written for it yet"

REASONS: dict[str, str] = {
    "AltDiffusionPipeline": "diffusers keeps it no longer",
    "AmusedPipeline": TOKENS,
    "BriaFiboPipeline": UNWRITTEN,
    "BriaFibo2Pipeline": UNWRITTEN,
    "CogVideoXFunControlPipeline": OTHERS,
    "CogView4Pipeline": "its network is told times before the shift, which depends on the size of the picture",
    "Cosmos2TextToImagePipeline": "its pipeline scales states, times and outputs by a rule of its own",
    "DreamLitePipeline": "it reads pictures beside the text",
    "ErnieImagePipeline": UNWRITTEN,
    "GlmImagePipeline": TWO,
    "HunyuanImagePipeline": "its guidance is an adaptive projection that remembers earlier steps",
    "Ideogram4Pipeline": UNWRITTEN,
    "KandinskyCombinedPipeline": CHAIN,
    "KandinskyPipeline": "it draws what an embedding shows, and its prior makes that of the text",
    "KandinskyPriorPipeline": EMBEDDINGS,
    "KandinskyV22CombinedPipeline": CHAIN,
    "KandinskyV22PriorPipeline": EMBEDDINGS,
    "KolorsPipeline": "its tokeniser is sentencepiece's, without which no toy of it can be made and tried",
    "Krea2Pipeline": UNWRITTEN,
    "LDMTextToImagePipeline": "diffusers keeps it no longer",
    "LLaDA2Pipeline": OTHERS,
    "LatentConsistencyModelPipeline": STUDENT,
    "LattePipeline": OTHERS,
    "LongCatAudioDiTPipeline": OTHERS,
    "LongCatImagePipeline": UNWRITTEN,
    "LuminaPipeline": "its guidance leaves one channel of four out, and its positions change with the time",
    "NucleusMoEImagePipeline": UNWRITTEN,
    "OmniGenPipeline": "one transformer reads tokens of the prompt and draws: there are no conditions to encode",
    "PRXPipeline": UNWRITTEN,
    "PRXPixelPipeline": UNWRITTEN,
    "QwenImage21Pipeline": "it reads pictures beside the text",
    "SanaSprintPipeline": STUDENT,
    "StableAudio3Pipeline": OTHERS,
    "StableCascadeCombinedPipeline": CHAIN,
    "StableCascadeDecoderPipeline": "it decodes what its prior made",
    "StableCascadePriorPipeline": EMBEDDINGS,
    "StableDiffusionGLIGENPipeline": "it reads boxes beside the text",
    "StableDiffusionGLIGENTextImagePipeline": "it reads boxes and pictures beside the text",
    "StableDiffusionLDM3DPipeline": "it makes depth beside the picture",
    "StableUnCLIPPipeline": CHAIN,
    "UnCLIPPipeline": "it is a chain of a prior, a decoder and two networks that enlarge",
    "UniDiffuserPipeline": "it denoises text and picture together",
    "VQDiffusionPipeline": TOKENS,
    "VersatileDiffusionPipeline": "diffusers keeps it no longer",
    "VersatileDiffusionTextToImagePipeline": "diffusers keeps it no longer",
    "WuerstchenCombinedPipeline": CHAIN,
    "WuerstchenDecoderPipeline": "it decodes what its prior made",
    "WuerstchenPriorPipeline": EMBEDDINGS,
    "ZImageOmniPipeline": "it reads pictures beside the text",
}
"""By the pipeline's class."""

SAMPLERS: dict[str, str] = {
    "HunyuanDiTPAGPipeline": "HunyuanDiTPipeline",
    "PixArtSigmaPAGPipeline": "PixArtSigmaPipeline",
    "SanaPAGPipeline": "SanaPipeline",
    "SemanticStableDiffusionPipeline": "StableDiffusionPipeline",
    "StableDiffusion3PAGPipeline": "StableDiffusion3Pipeline",
    "StableDiffusionAttendAndExcitePipeline": "StableDiffusionPipeline",
    "StableDiffusionModelEditingPipeline": "StableDiffusionPipeline",
    "StableDiffusionPAGPipeline": "StableDiffusionPipeline",
    "StableDiffusionPanoramaPipeline": "StableDiffusionPipeline",
    "StableDiffusionParadigmsPipeline": "StableDiffusionPipeline",
    "StableDiffusionPix2PixZeroPipeline": "StableDiffusionPipeline",
    "StableDiffusionSAGPipeline": "StableDiffusionPipeline",
    "StableDiffusionXLPAGPipeline": "StableDiffusionXLPipeline",
}
"""Pipelines that sample a family's networks in another way, and that family."""

PICTURES = (
    "image", "images", "control_image", "mask_image", "source_prompt", "reference_image", "image_embeds",
)  # fmt: skip
ELSEWHERE = ("video", "num_frames", "video_length", "frames", "audio", "audio_duration", "audio_length_in_s",
             "audio_end_in_s", "frame_size")  # fmt: skip
"""Arguments of a call that tell what a pipeline is for."""


def why(name: str) -> str | None:
    """Why a pipeline of diffusers is no family, in a clause; None for what is not known."""
    if name in SAMPLERS:
        return (
            f"it samples the network of a {SAMPLERS[name]} in a way of its own: write that name under '_class_name' in "
            "a copy of its model_index.json to distil the network"
        )
    return REASONS.get(name) or _by_its_call(name)


def _by_its_call(name: str) -> str | None:
    import diffusers

    kind: Any = getattr(diffusers, name, None)
    calls = inspect.signature(kind.__call__).parameters if isinstance(kind, type) else {}
    if any(each in calls for each in ELSEWHERE):
        return OTHERS
    return "it reads pictures beside the text" if any(each in calls for each in PICTURES) else None


def others() -> dict[str, str]:
    """Every text-to-image pipeline that is named above, with what is said of it."""
    said = {name: reason for name, reason in REASONS.items() if reason != OTHERS}
    said |= {name: f"it samples the network of a {family} in a way of its own" for name, family in SAMPLERS.items()}
    return dict(sorted(said.items()))
