"""Between diffusers' scheduler configs and our paths and samplers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distill.core import DistillError, GaussianPath, Sampler
from distill.core.paths import Discrete, Flow
from distill.core.sampling import DDIM, Consistency, Grid

KINDS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
ZERO_SNR = 1e-6
"""ᾱ at the last time below which a schedule counts as one without signal there."""


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


def shift(config: Mapping[str, Any], patches: int) -> float:
    """Timestep shift of a flow scheduler for a picture of so many patches; 1 for others.

    Shifts that grow with the picture interpolate ln s, or s, linearly in the number of patches (Esser et al. 2024,
    arXiv:2403.03206, section 5.3.2, as diffusers computes it).
    """
    if config and not isinstance(read(config)[0], Flow):
        return 1.0
    if not config.get("use_dynamic_shifting"):
        return float(config.get("shift") or config.get("flow_shift") or 1.0)
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    first, last = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    level = first + (last - first) * (patches - low) / (high - low)
    return float(level if config.get("time_shift_type") == "linear" else math.exp(level))


def write(path: GaussianPath, kind: str, sampler: Sampler, folder: Path) -> None:
    """A scheduler folder that diffusers loads, for the student's path."""
    scheduler(path, kind, sampler).save_pretrained(folder)


def scheduler(
    path: GaussianPath, kind: str, sampler: Sampler, *, variance: bool = False, scaled: bool = True
) -> Any:  # fmt: skip
    """diffusers' scheduler for a student: one that re-noises, or a deterministic one.

    The times are not part of it: they go with the call, as `timesteps` or `sigmas` (`times`). With `variance` it says
    that a network's learnt variance is not its own to use; without `scaled` the network gets states as they are.
    """
    if isinstance(path, Flow):
        return _flow(sampler)
    if not isinstance(path, Discrete):
        raise DistillError(f"diffusers has no scheduler for the path {type(path).__name__}: export to safetensors")
    said = {ours: theirs for theirs, ours in KINDS.items()}.get(kind)
    if said is None:
        raise DistillError(f"diffusers has no scheduler for predictions of kind {kind} here: export to safetensors")
    return _discrete(path, said, sampler, variance, scaled)


def renoises(path: GaussianPath, sampler: Sampler) -> bool:
    """Whether there is a step after which the sampler draws noise.

    Raises:
        DistillError: diffusers has no scheduler that moves as the sampler does.
    """
    solver, single = sampler.solver, len(sampler.grid_for(path)) == 2
    plain = isinstance(solver, DDIM) and not solver.eta
    if sampler.end or not (single or plain or isinstance(solver, Consistency) and solver.gamma == 1):
        what = f"solver {solver.name}" + f" that ends at {sampler.end}" * bool(sampler.end)
        raise DistillError(f"diffusers has no scheduler for the {what} here: export to safetensors")
    return not (single or plain)


def _flow(sampler: Sampler) -> Any:
    import diffusers

    kind: Any = diffusers.FlowMatchEulerDiscreteScheduler
    return kind(shift=1.0 if sampler.times else sampler.grid.shift, stochastic_sampling=renoises(Flow(), sampler))


def _discrete(path: Discrete, said: str, sampler: Sampler, variance: bool, scaled: bool) -> Any:
    import diffusers

    bars = torch.tensor((1.0, *path.alphas_cumprod), dtype=torch.float64)
    common: dict[str, Any] = {
        "num_train_timesteps": len(bars) - 1, "trained_betas": (1 - bars[1:] / bars[:-1]).tolist(),
        "prediction_type": said, "steps_offset": 1,
    }  # fmt: skip
    kind: Any
    own: dict[str, Any]
    if variance and renoises(path, sampler):
        raise DistillError("diffusers has no scheduler that re-noises beside a learnt variance: export to safetensors")
    if renoises(path, sampler):  # the boundary condition of its own that this scheduler has is switched off
        kind, own = diffusers.LCMScheduler, {"timestep_scaling": 1e6, "clip_sample": False}
    elif variance or not scaled:  # of first order it steps as DDIM does
        kind, own = diffusers.DPMSolverMultistepScheduler, {"timestep_spacing": "trailing", "solver_order": 1}
    elif bars[-1] < ZERO_SNR:  # Euler's σ/α would be too large for single precision
        kind, own = diffusers.DDIMScheduler, {"timestep_spacing": "trailing", "clip_sample": False}
    else:
        kind, own = diffusers.EulerDiscreteScheduler, {"timestep_spacing": "trailing"}
    return kind(**common, **own)


def times(path: GaussianPath, sampler: Sampler) -> list[float]:
    """When the network is asked: a pipeline's `sigmas` for flows, σ before the shift, its `timesteps` for others."""
    if isinstance(path, Flow):
        plain = sampler if sampler.times else sampler.model_copy(update={"grid": Grid(spacing=sampler.grid.spacing)})
        return list(plain.grid_for(path)[:-1])
    native = [float(path.native(torch.tensor(t, dtype=torch.float64))) for t in sampler.grid_for(path)[:-1]]
    return [round(t) if abs(t - round(t)) < 1e-3 else t for t in native]


def even(path: GaussianPath, sampler: Sampler) -> bool:
    """Whether these are the times that the scheduler would choose by itself for this number of steps."""
    asked = times(path, sampler)
    if not isinstance(path, Discrete):
        return asked == [1.0]
    wanted = [round(len(path.alphas_cumprod) * (1 - n / len(asked))) - 1 for n in range(len(asked))]
    return all(abs(a - b) < 1e-6 for a, b in zip(asked, wanted, strict=True))
