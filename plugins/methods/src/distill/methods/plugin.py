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
    return _parts(
        "trajectories",
        {
            "data": ("Data", "The data themselves, for losses that noise them on their own"),
            "noised-data": ("NoisedData", "Data noised to random times, and the student's prediction there"),
            "generate": ("Generate", "The student's own samples, by backward simulation"),
            "view": ("View", "A view of a subject that is no network, through a lens"),
        },
    )


@hookimpl
def distill_losses() -> Sequence[Component]:
    return _parts(
        "losses",
        {
            "score-difference": ("ScoreDifference", "Reverse KL of diffused laws: DMD, VSD, SDS"),
            "score-identity": ("ScoreIdentity", "Fisher divergence with gradient through both scores: SiD"),
            "denoise": ("Denoise", "Denoising of data, or of the student's samples by a critic"),
            "match": ("Match", "Regression of a prediction to a target"),
            "match-state": ("MatchState", "Regression of a state to a target"),
            "adversarial-generator": ("AdversarialGenerator", "The student's side of a GAN on noised features"),
            "adversarial-discriminator": ("AdversarialDiscriminator", "The discriminator's side"),
        },
    )


@hookimpl
def distill_transforms() -> Sequence[Component]:
    return _parts(
        "transforms",
        {
            "lora": ("LoRA", "Low-rank adapters on weights that roles may share"),
            "scalar-input": ("ScalarInput", "An extra scalar input that changes nothing until it is trained"),
        },
    )


@hookimpl
def distill_methods() -> Sequence[Component]:
    return [
        Component(
            name="denoising",
            summary="Train a teacher from nothing by denoising data",
            target="distill.methods.papers.denoising:Denoising",
            paper="2206.00364",
        ),
        _method("dmd2", "Distribution matching without pairs, on two time scales, with a GAN", "DMD2", "2405.14867"),
    ]
