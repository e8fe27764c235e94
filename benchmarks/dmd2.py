"""One iteration of DMD2, three times: by our engine, by hand in plain PyTorch, and by NVIDIA's modelopt."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from table import LARGEST, Row, duel
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from distill.core import Batch, Denoiser, Engine, Event, Loss, Optimiser, Rng, Role
from distill.core.setup import assemble
from distill.image.networks import DiffusersNetwork, DiT, UNet2D
from distill.methods.losses import AdversarialGenerator, Denoise, ScoreDifference
from distill.methods.papers.dmd2 import DMD2
from distill.methods.times import UniformTimes

LOW, HIGH = 0.02, 0.98
RATE, DECAY, CLIP = 1e-4, 0.01, 10.0
EPS = 1e-6
"""Adam's ε, large enough that rounding errors in gradients near 0 do not decide which way a weight goes."""
SIZE = 32
ONE, FOUR = (HIGH,), (HIGH, 0.735, 0.49, 0.245)
"""The student's times: one step, or four of which a random one learns after the others were rolled out."""

NETWORKS: dict[str, DiffusersNetwork] = {
    "UNet2DModel": UNet2D(config={
        "sample_size": 16, "in_channels": 1, "out_channels": 1, "block_out_channels": [32, 64, 64],
        "layers_per_block": 1, "norm_num_groups": 8, "num_class_embeds": 11,
        "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    }),
    "DiTTransformer2DModel": DiT(config={
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "num_attention_heads": 4,
        "attention_head_dim": 32, "num_layers": 4, "patch_size": 2, "num_embeds_ada_norm": 10,
        "norm_num_groups": 1,
    }),
}  # fmt: skip
"""Networks of diffusers with about one million parameters."""


def teacher(network: str) -> Denoiser:
    """The network with random weights, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[network].build()


def method(times: tuple[float, ...] = ONE) -> DMD2:
    """DMD2 without its GAN: student and critic both move in every iteration."""
    levels = UniformTimes(low=LOW, high=HIGH)
    optimiser = Optimiser(lr=RATE, eps=EPS, weight_decay=DECAY, clip=CLIP)
    return DMD2(
        steps=1_000_000, times=times, critic_updates=1, generator=AdversarialGenerator(weight=0.0),
        score=ScoreDifference(times=levels), critic=Denoise(times=levels),
        student_optimiser=optimiser, critic_optimiser=optimiser,
    )  # fmt: skip


def engine(denoiser: Denoiser, size: int = SIZE, times: tuple[float, ...] = ONE, **extra: Any) -> Engine:
    """Our side: the method in the engine; `run(1)` is one iteration, and `extra` replaces roles."""
    roles = assemble(method(times), {"teacher": Role("teacher", denoiser)}, extra)

    def data(start: int) -> Iterator[Batch]:
        while True:
            yield Batch(size, cond={"label": labels(size)}, shape=denoiser.shape)

    return Engine(roles, method(times).plan(None), data)


def labels(size: int) -> Tensor:
    """The conditions of every batch."""
    return torch.arange(size) % 10


class Loop:
    """What both other sides have: three bare networks of diffusers and two optimisers."""

    def __init__(self, denoiser: Denoiser, size: int = SIZE) -> None:
        net = denoiser.network.get_submodule("net")
        self.teacher, self.student, self.critic = (copy.deepcopy(net) for _ in range(3))
        self.teacher.requires_grad_(False).eval()
        self.label, self.shape = labels(size), (size, *denoiser.shape)  # type: ignore[misc]
        self.optimisers = {
            module: torch.optim.AdamW(module.parameters(), lr=RATE, eps=EPS, weight_decay=DECAY, fused=True)
            for module in (self.student, self.critic)
        }

    def move(self) -> None:
        """Clip and step both optimisers."""
        for module, optimiser in self.optimisers.items():
            clip_grad_norm_(module.parameters(), CLIP)
            optimiser.step()
            optimiser.zero_grad()


class ByHand(Loop):
    """The iteration as one writes it for these networks alone, from the draws of our streams."""

    def __init__(self, denoiser: Denoiser, size: int = SIZE) -> None:
        super().__init__(denoiser, size)
        self.rng = Rng(0)

    def say(self, net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        """A network's velocity."""
        out: Tensor = net(x, timestep=1000 * t, class_labels=self.label, return_dict=False)[0]
        return out

    def normal(self, stream: str) -> Tensor:
        return torch.randn(self.shape, generator=self.rng.generator(stream))

    def time(self, stream: str) -> Tensor:
        return LOW + (HIGH - LOW) * torch.rand(self.shape[0], generator=self.rng.generator(stream))

    def step(self) -> None:
        start = HIGH * self.normal("generate/noise")
        x = start - HIGH * self.say(self.student, start, torch.full((self.shape[0],), HIGH))
        with torch.no_grad():
            t = self.time("score/time")
            level = t[:, None, None, None]
            x_t = (1 - level) * x + level * self.normal("score/noise")
            real = x_t - level * self.say(self.teacher, x_t, t)
            fake = x_t - level * self.say(self.critic, x_t, t)
            target = x - (fake - real) / (x - real).abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-5)
        (0.5 * mse_loss(x, target)).backward()
        x0, t, noise = x.detach(), self.time("denoise/critic/time"), self.normal("denoise/critic/noise")
        level = t[:, None, None, None]
        x_t = (1 - level) * x0 + level * noise
        mse_loss(self.say(self.critic, x_t, t), noise - x0).backward()
        self.move()


class OneStream(Rng):
    """Every purpose draws from torch's global generator, in the order of asking, as modelopt does."""

    def generator(self, stream: str) -> torch.Generator:
        return torch.default_generator


class Modelopt(Loop):
    """The same iteration with the losses of `modelopt.torch.fastgen.DMDPipeline`."""

    def __init__(self, denoiser: Denoiser, size: int = SIZE, times: tuple[float, ...] = ONE) -> None:
        from modelopt.torch.fastgen import DMDConfig, DMDPipeline, SampleTimestepConfig

        super().__init__(denoiser, size)
        several, rungs = len(times) > 1, [*times, 0.0]
        levels = SampleTimestepConfig(time_dist_type="uniform", min_t=LOW, max_t=HIGH, t_list=rungs)
        config = DMDConfig(
            pred_type="flow", fake_score_pred_type="flow", num_train_timesteps=1000, gan_loss_weight_gen=0,
            sample_t_cfg=levels, student_sample_steps=len(times), student_sample_type="sde",
            backward_simulation=several,
        )  # fmt: skip
        self.pipeline = DMDPipeline(self.student, self.teacher, self.critic, config)

    def losses(self) -> Iterator[Tensor]:
        """The student's and the critic's loss on the same noise, one after the other."""
        noise = torch.randn(self.shape)
        for compute in (self.pipeline.compute_student_loss, self.pipeline.compute_fake_score_loss):
            yield compute(noise, noise, class_labels=self.label)["total"]

    def step(self) -> None:
        for loss in self.losses():
            loss.backward()
        self.move()


def learn(ours: Engine) -> Iterator[tuple[Loss, str, Event]]:
    """The losses of one iteration of ours, with the role that each moves, on one shared event."""
    updates = ours.phase.updates
    batch = next(ours.data(0))
    event = next(iter(updates[0].trajectory.events(batch, ours.ctx, attached=True)))
    for update in updates:
        yield update.loss, *update.loss.moves, event


def gap(ours: Engine, theirs: Loop) -> float:
    """Largest difference between the weights of the two sides."""
    pairs = ((ours.roles["student"], theirs.student), (ours.roles["critic"], theirs.critic))
    return max(
        float((a - b).detach().abs().max())
        for role, net in pairs
        for a, b in zip(role.parameters(), net.parameters(), strict=True)
    )


def gap_after(ours: Engine, theirs: ByHand, steps: int = 5) -> float:
    """The same after some iterations of each."""
    ours.run(steps)
    for _ in range(steps):
        theirs.step()
    return gap(ours, theirs)


def gaps_to_modelopt(network: str, size: int = SIZE) -> tuple[float, float]:
    """Largest difference of the two losses, and of their gradients, on the same draws."""
    ours, theirs = engine(teacher(network), size), Modelopt(teacher(network), size)
    ours.run(3)  # away from the start, where critic and teacher agree and the student's loss is 0
    for role, net in (("student", theirs.student), ("critic", theirs.critic)):
        net.load_state_dict(ours.roles[role].denoiser.network.get_submodule("net").state_dict())
    ours.ctx.rng = OneStream(0)
    torch.manual_seed(0)
    said = []
    for loss, role, event in learn(ours):
        (term,) = loss.terms(event, ours.ctx).values()
        said.append((term.mean(), torch.autograd.grad(term.mean(), ours.roles[role].parameters())))
    torch.manual_seed(0)
    losses, gradients = [], []
    nets = (theirs.student, theirs.critic)
    for net, (value, slopes), loss in zip(nets, said, theirs.losses(), strict=True):
        losses.append(float((loss - value).detach().abs()))
        expected = torch.autograd.grad(loss, list(net.parameters()))
        gradients += [float((a - b).abs().max()) for a, b in zip(slopes, expected, strict=True)]
    return max(losses), max(gradients)


def overhead() -> list[Row]:
    """What the engine costs: time against the loop by hand."""
    rows = []
    for network in NETWORKS:
        ours, theirs = engine(teacher(network)), ByHand(teacher(network))
        equal = f"weights after 5 iterations as by a bare loop, {network}"
        faster = f"iteration against a bare loop, {network}"
        rows.append(Row(equal, 1e-6, gap_after(ours, theirs), note=LARGEST))
        rows.append(duel(faster, 1.03, partial(ours.run, 1), theirs.step))
    return rows


def peer() -> list[Row]:
    """DMD2 against modelopt."""
    network = "DiTTransformer2DModel"
    what = f"iteration against modelopt's DMDPipeline, {network}, student of "
    if find_spec("modelopt") is None:
        return [Row(f"{what}one step", 0.9, why="not installed: pip install -c constraints.txt nvidia-modelopt")]
    loss, gradient = gaps_to_modelopt(network)
    rows = [
        Row("same losses as modelopt's DMDPipeline", 1e-6, loss, note=LARGEST),
        Row("same gradients as modelopt's DMDPipeline", 1e-6, gradient, note=LARGEST),
    ]
    for steps, times in (("one step", ONE), ("four steps", FOUR)):
        ours, theirs = engine(teacher(network), times=times), Modelopt(teacher(network), times=times)
        note = "here one roll-out serves both losses"
        rows.append(duel(what + steps, 0.9, partial(ours.run, 1), theirs.step, note))
    return rows
