"""Sampling by our roll-out against diffusers' own loops, with the same networks, schedulers and noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMPipeline, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from dmd2 import NETWORKS, labels, teacher
from table import LARGEST, Row, duel
from torch import Tensor

from distill.core import Denoiser, Role, Sampler
from distill.image import schedulers
from distill.image.networks import UNet2D

STEPS, SIZE = 25, 16

Side = Callable[[], Tensor]


def _noise(denoiser: Denoiser, size: int) -> Tensor:
    return torch.randn(size, *denoiser.shape, generator=torch.Generator().manual_seed(0))  # type: ignore[misc]


def ddim(steps: int = STEPS, size: int = SIZE) -> tuple[Side, Side]:
    """Images in [0, 1] from a UNet, by our DDIM and by diffusers' DDIMPipeline."""
    scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing")
    path, kind = schedulers.read({**scheduler.config, "_class_name": "DDIMScheduler"})
    config = NETWORKS["UNet2DModel"].config | {"num_class_embeds": None}  # type: ignore[attr-defined]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = UNet2D(config=config).build().eval()
    denoiser = Denoiser(built.network, path, kind, shape=built.shape)
    pipeline = DDIMPipeline(unet=denoiser.network.get_submodule("net"), scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)

    @torch.inference_mode()
    def ours() -> Tensor:
        # diffusers starts from a deviation of 1, the path from one of 0.99998
        noise = _noise(denoiser, size) / path.sigma(torch.ones(()))
        x = Sampler(steps=steps).sample(Role("teacher", denoiser), noise)
        return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    def theirs() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        made = pipeline(batch_size=size, generator=generator, num_inference_steps=steps, output_type="np")
        return torch.from_numpy(made.images)

    return ours, theirs


def flow(steps: int = STEPS, size: int = SIZE) -> tuple[Side, Side]:
    """Images from a class-conditional DiT, by our Euler steps and by those of diffusers' flow scheduler."""
    denoiser = teacher("DiTTransformer2DModel").eval()
    net, label = denoiser.network.get_submodule("net"), labels(size)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(steps)
    sampler = Sampler(times=tuple(scheduler.sigmas[:-1].tolist()))

    @torch.inference_mode()
    def ours() -> Tensor:
        x: Tensor = sampler.sample(Role("teacher", denoiser), _noise(denoiser, size), {"label": label})
        return x

    @torch.no_grad()
    def theirs() -> Tensor:
        x = _noise(denoiser, size)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            velocity = net(x, timestep=t.expand(size), class_labels=label).sample
            x = scheduler.step(velocity, t, x).prev_sample
        return x

    return ours, theirs


SIDES = {"DDIMPipeline (UNet2DModel)": ddim, "FlowMatchEulerDiscreteScheduler (DiTTransformer2DModel)": flow}


def sampling() -> list[Row]:
    """Equal images, and the time that they take."""
    rows = []
    for name, sides in SIDES.items():
        ours, theirs = sides()
        gap = float((ours() - theirs()).abs().max())
        rows.append(Row(f"same images as {name}", 1e-5, gap, note=LARGEST))
        note = "ours in torch's inference mode, as the commands sample; diffusers' pipelines use no_grad"
        rows.append(duel(f"time of {STEPS} steps against {name}", 1.0, ours, theirs, note))
    return rows
