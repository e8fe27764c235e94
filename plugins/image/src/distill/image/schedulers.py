"""Between diffusers' scheduler configs and our paths and samplers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distill.core import DistillError, GaussianPath, Sampler
from distill.core.paths import Discrete, Flow
from distill.core.sampling import Consistency

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def read(config: Mapping[str, Any]) -> tuple[GaussianPath, str]:
    """Path and parameterisation that a scheduler config describes; flow and velocity for an empty one."""
    name, said = str(config.get("_class_name", "")), str(config.get("prediction_type", "epsilon"))
    if not config or name.startswith("FlowMatch") or said == "flow_prediction":
        return Flow(), "velocity"
    if said not in KINDS or not config.keys() & {"beta_schedule", "beta_start", "trained_betas"}:
        raise DistillError(
            f"the scheduler {name} with prediction_type '{said}' is none that can be read: known are FlowMatch "
            f"schedulers, and those with betas that predict {', '.join(KINDS)}. Say 'path' and 'kind' in the recipe."
        )
    return Discrete(alphas_cumprod=_alphas_cumprod(config)), KINDS[said]


def _alphas_cumprod(config: Mapping[str, Any]) -> tuple[float, ...]:
    steps, start, end = (
        config.get("num_train_timesteps", 1000),
        config.get("beta_start", 1e-4),
        config.get("beta_end", 0.02),
    )
    schedules = {
        "linear": lambda: torch.linspace(start, end, steps, dtype=torch.float64),
        "scaled_linear": lambda: torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2,
        "squaredcos_cap_v2": lambda: _cosine(steps),
    }
    given = config.get("trained_betas")
    schedule = str(config.get("beta_schedule", "linear"))
    if given is None and schedule not in schedules:
        raise DistillError(f"the scheduler's beta_schedule '{schedule}' is unknown; known: {', '.join(schedules)}")
    betas = schedules[schedule]() if given is None else torch.tensor(given, dtype=torch.float64)
    bars = (1 - betas).cumprod(0)
    if config.get("rescale_betas_zero_snr"):  # Lin et al. 2024, arXiv:2305.08891, algorithm 1, but for a last bit
        first, last = bars[0].sqrt(), bars[-1].sqrt()
        bars = ((bars.sqrt() - last) * first / (first - last)).square().clamp_min(2**-24)
    return tuple(bars.tolist())


def _cosine(steps: int) -> torch.Tensor:
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    bar = torch.cos((u + 0.008) / 1.008 * torch.pi / 2) ** 2
    return (1 - bar[1:] / bar[:-1]).clamp_max(0.999)


def write(path: GaussianPath, kind: str, sampler: Sampler, folder: Path) -> None:
    """A scheduler folder that diffusers loads, for the student's path.

    Few-step students that re-noise get diffusers' LCM schedulers, others a deterministic one; the exact times stand in
    `sampler.json`, to be passed as `timesteps` or `sigmas`.
    """
    import diffusers

    renoises = isinstance(sampler.solver, Consistency)
    if isinstance(path, Flow):
        flow: Any = diffusers.FlowMatchLCMScheduler if renoises else diffusers.FlowMatchEulerDiscreteScheduler
        flow(shift=sampler.grid.shift).save_pretrained(folder)
        return
    if not isinstance(path, Discrete):
        raise DistillError(f"diffusers has no scheduler for the path {type(path).__name__}: export to safetensors")
    bars = torch.tensor((1.0, *path.alphas_cumprod), dtype=torch.float64)
    said = {ours: theirs for theirs, ours in KINDS.items()}.get(kind)
    if said is None:
        raise DistillError(f"diffusers has no scheduler for predictions of kind {kind} here: export to safetensors")
    discrete: Any = diffusers.LCMScheduler if renoises else diffusers.DDIMScheduler
    discrete(
        num_train_timesteps=len(bars) - 1,
        trained_betas=(1 - bars[1:] / bars[:-1]).tolist(),
        prediction_type=said,
    ).save_pretrained(folder)
