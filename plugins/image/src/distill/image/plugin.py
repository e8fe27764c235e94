"""What distill-image provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1
SR = "super_resolution"


def _image(module: str, parts: dict[str, tuple[str, str]]) -> list[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.image.{module}:{target}", modality="image")
        for name, (target, summary) in parts.items()
    ]


def _restoration(name: str, summary: str, target: str, paper: str) -> Component:
    module = name.replace("-", "_")
    return Component(
        name=name,
        summary=summary,
        target=f"distill.image.{SR}.papers.{module}:{target}",
        modality="image",
        paper=paper,
        claim=f"distill.image.{SR}.claims.{module}:claim",
    )


RESTORATION: tuple[tuple[str, str, str, str], ...] = (
    ("framer", "The last layer teaches those before it, band by band, in ordinary training", "Framer", "2512.01390"),
    ("addsr", "ADD from a teacher that sees the picture itself, with steps that refine", "AddSR", "2404.01717"),
    ("yonos-sr", "Who knows a small ratio teaches the next larger one", "YonosSR", "2401.17258"),
    (
        "tad-sr",
        "One call learns a teacher's routes, with its score near clean pictures and a GAN that knows the time",
        "TADSR",
        "2408.07476",
    ),
    ("ctmsr", "One step from noise by consistency, then by matching trajectories; no teacher", "CTMSR", "2503.20349"),
    ("tsd-sr", "Scores of critic and teacher, the teacher's of the truth too, for adapters", "TSDSR", "2411.18263"),
    ("fluxsr", "Stored pairs of a teacher, and the way from a low-resolution picture to noise", "FluxSR", "2502.01993"),
    (
        "tinysr",
        "A one-step student with the layers that learnt gates keep, slim ends and no time",
        "TinySR",
        "2508.17434",
    ),
    (
        "self-cascade",
        "A network at twice its resolution, led by its own sample; small modules carry features, if any",
        "SelfCascade",
        "2402.10491",
    ),
    ("ssdd", "A decoder that denoises, without a GAN, and says in one step what it says in many", "SSDD", "2510.04961"),
)
"""Papers of super-resolution: name, summary, class, arXiv id."""


@hookimpl
def distill_modalities() -> Sequence[Component]:
    return _image("modality", {"image": ("Image", "Pictures, [B, C, H, W] in [-1, 1], written as PNG")})


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return [
        *_image(
            "networks",
            {
                "unet2d": ("UNet2D", "diffusers' UNet2DModel, with or without labels"),
                "unet2d-condition": (
                    "UNet2DCondition",
                    "diffusers' UNet2DConditionModel: Stable Diffusion 1, 2, XL",
                ),
                "dit": ("DiT", "diffusers' DiTTransformer2DModel, by label"),
                "mmdit": ("MMDiT", "diffusers' SD3Transformer2DModel, by text"),
                "pixart": ("PixArt", "diffusers' PixArtTransformer2DModel, by text"),
            },
        ),
        *_image("pipeline", {"pipeline": ("Pipeline", "Any text-to-image pipeline of diffusers, from its folder")}),
        *_image(
            "oracles",
            {"agreement-oracle": ("AgreementOracle", "Scores pictures by how well they show what was asked for")},
        ),
        *_image(
            "teachers",
            {
                "digits-teacher": ("DigitsTeacher", "A small trained DiT: 8x8 handwritten digits"),
                "emoji-teacher": ("EmojiTeacher", "A small trained PixArt: 32x32 emoji from prompts"),
                "emoji-student": ("EmojiStudent", "emoji-teacher in one, two or four steps"),
            },
        ),
        *_image(f"{SR}.networks", {"restorer": ("RestorerDenoiser", "A compact network for super-resolution")}),
        *_image(
            f"{SR}.teachers",
            {
                "sr-teacher": ("SRTeacher", "A small trained restorer: photographs at ratios up to 4"),
                "sr-student": ("SRStudent", "sr-teacher in one step"),
            },
        ),
    ]


@hookimpl
def distill_datasets() -> Sequence[Component]:
    return (
        _image(
            "datasets",
            {
                "digits": ("Digits", "scikit-learn's 1,797 handwritten digits, 8x8, labelled"),
                "picture-folder": ("PictureFolder", "A folder of pictures; subfolders are labels"),
            },
        )
        + _image("datasets_emoji", {"emoji": ("Emoji", "1,899 colour emoji at 32x32 with their names as captions")})
        + _image(
            "datasets_captioned",
            {
                "captioned-folder": (
                    "CaptionedFolder",
                    "A folder of pictures with captions, in text files or metadata.jsonl",
                ),
                "webdataset": ("WebDataset", "Tar shards of pictures with captions"),
                "hub-dataset": ("HubDataset", "Captioned pictures of the package datasets"),
                "prompts": ("Prompts", "Prompts alone, of a list or a file"),
            },
        )
        + _image(
            f"{SR}.data",
            {
                "photographs": ("Photographs", "Pairs of the real photographs that installed packages ship"),
                "sr-folder": ("PhotographFolder", "Pairs of a folder of photographs"),
                "sr-pairs": ("PairedFolder", "Pairs of two folders with the same names"),
            },
        )
    )


@hookimpl
def distill_lenses() -> Sequence[Component]:
    return _image("pipeline", {"decode": ("Decode", "Latents to pictures, by the decoder of a diffusers pipeline")})


@hookimpl
def distill_metrics() -> Sequence[Component]:
    return _image(
        "metrics",
        {
            "frechet": ("Frechet", "Frechet distance in a network's features; lower is better"),
            "kernel": ("Kernel", "Kernel distance (KID) of subsets, mean and deviation; lower is better"),
            "recall": ("Recall", "Share of real pictures within the samples' manifold; higher is better"),
            "precision": (
                "Precision",
                "Share of samples within the real pictures' manifold; higher is better",
            ),
            "density": ("Density", "Real pictures around a sample, over those expected; higher is better"),
            "coverage": ("Coverage", "Share of real pictures with a sample beside them; higher is better"),
            "diversity": ("Diversity", "Mean distance between samples, or those of one prompt; higher is better"),
            "reference-distance": ("ReferenceDistance", "Mean distance to the nearest real picture; lower is better"),
            "agreement": ("Agreement", "How well samples show what was asked for; higher is better"),
            "label-accuracy": (
                "LabelAccuracy",
                "Share of samples that show the label asked for; higher is better",
            ),
        },
    ) + _image(
        f"{SR}.metrics",
        {
            "psnr": ("PSNR", "Peak signal-to-noise ratio of Y against the truth; higher is better"),
            "ssim": ("SSIM", "Structural similarity of Y to the truth; higher is better"),
            "perceptual": (
                "PerceptualDistance",
                "LPIPS, or a distance of its form in another network; lower is better",
            ),
            "low-fidelity": ("LowFidelity", "PSNR against the input, made small again; higher is better"),
            "blur": ("Blur", "How blurred a picture looks, with nothing to compare with; lower is better"),
        },
    )


@hookimpl
def distill_losses() -> Sequence[Component]:
    return _image(
        f"{SR}.losses",
        {
            "charbonnier": ("Charbonnier", "Samples against targets as whole pictures, robustly"),
            "edge-aware": ("EdgeAware", "Absolute error of whole pictures, heavier at edges"),
            "perceptual": ("Perceptual", "Distance of whole pictures in a network's features"),
            "end-score": ("EndScore", "What a teacher says of a sample and of its target, near clean states"),
            "frequency-alignment": ("FrequencyAlignment", "Layers against the last one, band by band"),
            "high-target": ("HighTarget", "What a teacher that is given the high-resolution picture makes of a sample"),
        },
    )


@hookimpl
def distill_transforms() -> Sequence[Component]:
    return [
        *_image(f"{SR}.conditioning", {"low-adapter": ("LowAdapter", "A low-resolution picture by zero convolutions")}),
        *_image(f"{SR}.slimming", {"slimmed": ("Slimmed", "Cheap convolutions where pictures enter and leave")}),
        *_image(
            f"{SR}.cascade",
            {"pivot-upsamplers": ("PivotUpsamplers", "Features of a pivot at a smaller resolution: self-cascade")},
        ),
    ]


@hookimpl
def distill_commands() -> Sequence[Component]:
    return _image(f"{SR}.upscale", {"upscale": ("upscale", "Make a picture larger, tile by tile")})


@hookimpl
def distill_methods() -> Sequence[Component]:
    return [
        Component(
            name="sfd-text-to-image",
            summary="SFD, measured on a text-to-image teacher and prompts",
            target="distill.methods.papers.sfd:SFD",
            paper="2409.19681",
            claim="distill.image.claims.sfd_text_to_image:claim",
        ),
        *(_restoration(*paper) for paper in RESTORATION),
        *_image(f"{SR}.one_step", {"sr-one-step": ("OneStep", "Super-resolution in one call: pairs, features, a GAN")}),
    ]
