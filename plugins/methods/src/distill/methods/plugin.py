"""What distill-methods provides."""

from collections.abc import Sequence

from distill.core.hookspecs import Component, hookimpl

DISTILL_SPEC = 1


def _method(name: str, summary: str, target: str, paper: str) -> Component:
    module = name.replace("-", "_")
    return Component(
        name=name,
        summary=summary,
        target=f"distill.methods.papers.{module}:{target}",
        paper=paper,
        claim=f"distill.methods.claims.{module}:claim",
    )


def _parts(module: str, parts: dict[str, tuple[str, str]]) -> list[Component]:
    return [
        Component(name=name, summary=summary, target=f"distill.methods.{module}:{target}")
        for name, (target, summary) in parts.items()
    ]


@hookimpl
def distill_denoisers() -> Sequence[Component]:
    return _parts("networks", {"mlp": ("MLPDenoiser", "A perceptron for flat or tiny states")})


@hookimpl
def distill_trajectories() -> Sequence[Component]:
    return [
        *_parts(
            "trajectories",
            {
                "data": ("Data", "The data themselves, for losses that noise them on their own"),
                "noised-data": (
                    "NoisedData",
                    "Data noised to random times, and the student's prediction there",
                ),
                "generate": ("Generate", "The student's own samples, by backward simulation"),
                "view": ("View", "A view of a subject that is no network, through a lens"),
            },
        ),
        *_parts(
            "teacher_paths",
            {
                "grid-jumps": ("GridJumps", "Two jumps of the teacher as one of the student"),
                "teacher-route": (
                    "TeacherRoute",
                    "The student's roll-out beside its teacher's, step by step",
                ),
                "harvest": ("Harvest", "Points of the teacher's own route with their tangents, without data"),
            },
        ),
        *_parts(
            "pairs",
            {
                "paired": ("Paired", "The student's samples together with its answers to stored noises"),
                "replay": ("Replay", "End points that the teacher made once, as data"),
            },
        ),
    ]


@hookimpl
def distill_losses() -> Sequence[Component]:
    return [
        *_parts(
            "losses",
            {
                "score-difference": ("ScoreDifference", "Reverse KL of diffused laws: DMD, VSD, SDS"),
                "score-identity": (
                    "ScoreIdentity",
                    "Fisher divergence with gradient through both scores: SiD",
                ),
                "denoise": ("Denoise", "Denoising of data, or of the student's samples by a critic"),
                "match": ("Match", "Regression of a prediction to a target"),
                "match-state": ("MatchState", "Regression of a state to a target"),
                "teacher-target": (
                    "TeacherTarget",
                    "Regression of a sample to what the teacher makes of it: ADD",
                ),
                "adversarial-generator": ("AdversarialGenerator", "The student's side of a GAN on features"),
                "adversarial-discriminator": (
                    "AdversarialDiscriminator",
                    "The discriminator's side of a GAN",
                ),
            },
        ),
        *_parts(
            "consistency",
            {"continuous-consistency": ("ContinuousConsistency", "Continuous-time consistency: sCM")},
        ),
        *_parts("pairs", {"pair-regression": ("PairRegression", "Regression on stored noise and end-point pairs")}),
    ]


@hookimpl
def distill_transforms() -> Sequence[Component]:
    return _parts(
        "transforms",
        {
            "lora": ("LoRA", "Low-rank adapters on weights that roles may share"),
            "scalar-input": ("ScalarInput", "An extra scalar input that changes nothing until it is trained"),
        },
    )


PAPERS = (
    (
        "progressive-distillation",
        "Halve the teacher's steps again and again",
        "ProgressiveDistillation",
        "2202.00512",
    ),
    (
        "guided-distillation",
        "Guidance as an input of one call, then halving",
        "GuidedDistillation",
        "2210.03142",
    ),
    (
        "lora-guided",
        "The guided teacher in one call, as an adapter on its own weights",
        "LoRAGuided",
        "2312.06899",
    ),
    (
        "sfd",
        "Follow the teacher's route, an optimiser step at every step of the roll-out",
        "SFD",
        "2409.19681",
    ),
    ("d-ode", "Calibrate a solver to its own fine grid; trains nothing", "DODE", "2309.16421"),
    ("tbcm", "Continuous-time consistency on the teacher's own route, without data", "TBCM", "2511.20410"),
    ("dmd", "Distribution matching with a regression on stored pairs", "DMD", "2311.18828"),
    ("dmd2", "Distribution matching without pairs, on two time scales, with a GAN", "DMD2", "2405.14867"),
    ("sid", "Fisher divergence through teacher and critic, without data", "SiD", "2404.04057"),
    (
        "swiftbrush",
        "Variational score distillation; the critic is an adapter on the teacher",
        "SwiftBrush",
        "2312.05239",
    ),
    (
        "add",
        "A GAN on frozen features of clean samples, and the teacher's answer as a target",
        "ADD",
        "2311.17042",
    ),
    ("ladd", "A GAN on the teacher's own features of noised samples", "LADD", "2403.12015"),
)


@hookimpl
def distill_methods() -> Sequence[Component]:
    teacher = Component(
        name="denoising",
        summary="Train a teacher from nothing by denoising data",
        target="distill.methods.papers.denoising:Denoising",
        paper="2206.00364",
    )
    return [teacher, *(_method(*paper) for paper in PAPERS)]
