"""What distill-video provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


def _video(module: str, parts: dict[str, tuple[str, str]]) -> list[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.video.{module}:{target}", modality="video")
        for name, (target, summary) in parts.items()
    ]


def _method(name: str, summary: str, target: str, paper: str) -> Component:
    module = name.replace("-", "_")
    return Component(
        name=name,
        summary=summary,
        target=f"distill.video.papers.{module}:{target}",
        modality="video",
        paper=paper,
        claim=f"distill.video.claims.{module}:claim" if name in CLAIMED else "",
    )


CLAIMED = (
    "dreammotion", "causvid", "self-forcing", "soulx-flashtalk", "fada", "mcm", "avdm2", "accvideo",
    "resampling-forcing", "livetalk", "asd-ffe",
)  # fmt: skip
"""Methods whose claims can be measured."""
TRAJECTORIES = {
    "mixed": ("Mixed", "Another trajectory, on data that are partly the student's own answers"),
    "chunk-keys": ("ChunkKeys", "Stored routes, each chunk at a key time of its own: CausVid"),
    "chunk-noise": ("ChunkNoise", "Chunks at noise levels of their own, answered in one pass: CausVid"),
    "self-rollout": ("SelfRollout", "The student's own clips, chunk by chunk on its cache: Self-Forcing"),
    "two-rollouts": ("TwoRollouts", "Clips of n steps and of n + 1: ASD"),
    "continuation": ("Continuation", "A clip that continues the student's own clips: SoulX-FlashTalk"),
    "resampled": ("Resampled", "Noised chunks on a history that the student has drawn again"),
    "stretches": ("Stretches", "Stretches of stored routes, and the student's own route beside them"),
}
LOSSES = {
    "motion-match": ("MotionMatch", "Clips against others, both through a motion head: MCM"),
    "guided-score": ("GuidedScore", "Distribution matching with a weight for each condition"),
    "multi-guided": ("MultiGuided", "One call against several, at drawn weights: FADA"),
    "on-frames": ("OnFrames", "A loss of pictures on some frames of each clip"),
}
PAPERS = (
    ("causvid", "A causal student of a bidirectional teacher, chunk by chunk", "CausVid", "2412.07772"),
    ("self-forcing", "Distribution matching on clips that a causal student makes itself", "SelfForcing", "2506.08009"),
    ("asd-ffe", "Clips of n steps against those of n + 1; more steps for the first chunk", "ASDFFE", "2511.01419"),
    (
        "resampling-forcing",
        "Histories that a causal model spoils itself; no teacher",
        "ResamplingForcing",
        "2512.15702",
    ),
    ("livetalk", "On-policy distillation under text and sound, with anchors", "LiveTalk", "2512.23576"),
    ("soulx-flashtalk", "Clips that continue the student's own, without a cache", "SoulXFlashTalk", "2512.23379"),
    ("fada", "One call for several of the teacher, at any weight of each condition", "FADA", "2412.16915"),
    ("dreammotion", "A clip edited by score differences that stays like itself", "DreamMotion", "2403.12002"),
    ("mcm", "Consistency of motion through a learnt head, appearance from pictures", "MCM", "2406.06890"),
    ("avdm2", "Scores of pictures on some frames, and a GAN on clips", "AVDM2", "2412.05899"),
    ("accvideo", "Mean velocities between key states of stored routes, and a GAN", "AccVideo", "2503.19462"),
)


@hookimpl
def distill_modalities() -> Sequence[Component]:
    return _video("modality", {"video": ("Video", "Clips, [B, F, C, H, W] in [-1, 1], written as MP4")})


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return [
        *_video("networks", {"video-dit": ("VideoDiT", "A compact video transformer, bidirectional or causal")}),
        *_video(
            "teachers",
            {
                "moving-teacher": ("MovingTeacher", "A small trained video-dit: 32x32 moving digits by label"),
                "moving-student": ("MovingStudent", "moving-teacher made causal, in four steps a chunk"),
            },
        ),
        *_video(
            "wrapped",
            {
                "wan": ("Wan", "diffusers' WanTransformer3DModel, by text"),
                "ltx-video": ("LTX", "diffusers' LTXVideoTransformer3DModel, by text"),
                "cogvideox": ("CogVideoX", "diffusers' CogVideoXTransformer3DModel, by text"),
            },
        ),
    ]


@hookimpl
def distill_datasets() -> Sequence[Component]:
    return _video(
        "datasets",
        {
            "moving-digits": ("MovingDigits", "scikit-learn's digits in even motion, by label and speed"),
            "dancing-digits": ("DancingDigits", "Digits that move to a track of sound, with audio and reference"),
            "video-folder": ("VideoFolder", "A folder of clips in windows; captions in text files"),
        },
    )


@hookimpl
def distill_metrics() -> Sequence[Component]:
    return _video(
        "metrics",
        {
            "appearance-frechet": ("AppearanceFrechet", "Frechet distance of frames; lower is better"),
            "motion-frechet": ("MotionFrechet", "Frechet distance of frame differences; lower is better"),
            "drift": ("Drift", "Distance of each later eighth of a clip to its first; lower is better"),
            "causality": ("Causality", "What earlier chunks owe to later frames; 0 for a causal network"),
            "flicker": ("Flicker", "Second difference in time against the data's; lower is better"),
        },
    )


@hookimpl
def distill_trajectories() -> Sequence[Component]:
    edit = {"edit": ("Edit", "Clips that are edited, with the conditions that they shall meet")}
    return _video("trajectories", TRAJECTORIES) + _video("editing", edit)


@hookimpl
def distill_losses() -> Sequence[Component]:
    edit = {"edit-score": ("EditScore", "Score differences of a clip and its source, and likenesses: DreamMotion")}
    return _video("losses", LOSSES) + _video("editing", edit)


@hookimpl
def distill_methods() -> Sequence[Component]:
    return [_method(*paper) for paper in PAPERS]


@hookimpl
def distill_transforms() -> Sequence[Component]:
    return _video("networks", {"block-causal": ("Causal", "Frames see only finished chunks, a window, and sinks")})
