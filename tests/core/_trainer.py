"""A small training with all that a checkpoint must hold; the tests run it as a process of its own, and kill
it.

python _trainer.py curve OUT.json            one process, or several under `accelerate launch`
python _trainer.py crashes FOLDER SEED       forks the training until it ends, killing it at random moments;
                                             and once with a disk that is full
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from distill.core import (
    EMA,
    Copy,
    Denoiser,
    Engine,
    Event,
    Loss,
    Optimiser,
    Phase,
    Plan,
    Role,
    Roles,
    Sampler,
    Samples,
    Trajectory,
    Update,
    batches,
    checkpoint,
    tree,
)  # fmt: skip
from distill.core.contracts import Fit
from distill.core.errors import CheckpointError
from distill.core.paths import Flow


class Net(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, 2))
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x, t, cond):
        return self.layers(torch.cat([x, t[:, None] / 1000], 1))


class Noised(Trajectory):
    def events(self, batch, ctx, *, attached):
        role = ctx.roles["student"]
        t, noise = ctx.rng.uniform(batch.size), batch.noise(ctx.rng)
        with torch.set_grad_enabled(attached):
            said = role.predict(role.denoiser.path.noised(batch.data, noise, t), t, batch.cond)
        yield Event(said.x0, t=t, noise=noise, prediction=said, targets={"x": batch.data})


class Regress(Loss):
    owns: bool = True
    """Keep and use an average over steps; of this process's samples, so one process alone has that of the
    whole batch."""

    def terms(self, event, ctx):
        error = tree.mean((event.x - event.targets["x"]) ** 2)
        if not self.owns:
            return {"regress": error}
        old = ctx.state.get("average", torch.zeros(2))
        ctx.state["average"] = 0.9 * old + 0.1 * event.targets["x"].mean(0)
        return {"regress": error + 0.01 * (event.x.mean(0) - ctx.state["average"]).pow(2).sum()}


class Imitate(Loss):
    @property
    def moves(self):
        return ("critic",)

    def terms(self, event, ctx):
        said = ctx.roles["critic"].predict(event.prediction.x, event.t)
        return {"imitate": tree.mean((said.x0 - event.x.detach()) ** 2)}


class Calibrate(Fit):
    def fit(self, batch, ctx, sampler):
        return Sampler(times=(1.0, 0.25 + 0.5 * float(batch.noise(ctx.rng, "fit").mean().sigmoid())), steps=2)


def plan(steps, owns):
    both = (
        Update(trajectory=Noised(), loss=Regress(owns=owns), every=2),
        Update(trajectory=Noised(), loss=Imitate()),
    )
    first = Phase(
        name="both", steps=steps // 2, updates=both, actions=(EMA(decay=0.9),), at_end=(Copy(target="past"),
        EMA(decay=0.5)),
        optimisers={"student": Optimiser(lr=1e-2, clip=1.0, warmup=20, weight_decay=0.1),
        "critic": Optimiser(lr=1e-2)},
    )  # fmt: skip
    last = Phase(
        name="student", steps=steps - steps // 2, updates=both[:1], actions=(EMA(decay=0.9, every=3),),
        optimisers={"student": Optimiser(lr=3e-3, schedule="cosine")},
    )  # fmt: skip
    return Plan(phases=(first, Phase(name="fit", fit=Calibrate()), last))


def engine(folder=None, *, steps=300, dropout=0.1, size=16, accelerator=None, careless=0, owns=True, **options):
    accelerator = accelerator or Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(careless * rank)
    nets = {
        name: Denoiser(Net(dropout), Flow(), "x0", shape=(2,)) for name in ("student", "critic", "past", "student_ema")
    }
    roles = Roles({name: Role(name, net, frozen=name in ("past", "student_ema")) for name, net in nets.items()})
    data = Samples(x=torch.randn(100, 2, generator=torch.Generator().manual_seed(7)).cumsum(1))
    source = partial(batches, data, size, seed=1)
    return Engine(
        roles, plan(steps, owns), lambda start: source(start=start, rank=rank, world=world), seed=3,
        folder=folder,
        accelerator=accelerator, **options,
    )  # fmt: skip


def train(folder):
    """Train from the newest checkpoint, if there is one, to the end."""
    made = engine(folder, checkpoint_every=5)
    last = made.last_checkpoint()
    (made.resume(last) if last else made).run()


def curve(out):
    """The loss curve over 60 iterations of a global batch of 16, from weights that differ between
    processes."""
    lines = []
    made = engine(steps=60, dropout=0.0, careless=1, owns=False, on_step=lambda _, metrics: lines.append(metrics)).run()
    if made.accelerator.is_main_process:
        weights = [value for role in made.roles.values() for value in role.tensors().values()]
        sums = [float(value.double().sum()) for value in weights]
        Path(out).write_text(json.dumps({"curve": lines, "weights": sums, "world": made.accelerator.num_processes}))
    made.accelerator.wait_for_everyone()
    made.accelerator.end_training()


def fork(work, *args):
    """Run a function in a child: its process id. The parent never runs a backward pass, so that forking is
    safe."""
    child = os.fork()
    if not child:
        work(*args)
        os._exit(0)
    return child


def crashes(folder, seed):
    """Train once in peace, then again, killed at random moments; each checkpoint that can be seen must be
    whole."""
    folder, dice, killed, seen = Path(folder), random.Random(int(seed)), 0, set()
    engine().run(0)  # the slow imports, once for all children
    started = time.monotonic()
    os.waitpid(fork(train, folder / "peace"), 0)
    span = (time.monotonic() - started) / 8
    while True:
        child = fork(train, folder / "war")
        if killed < 15:
            time.sleep(dice.uniform(0, span))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        for step in checkpoint.steps(folder / "war" / "checkpoints"):
            checkpoint.read(folder / "war" / "checkpoints" / f"step-{step}")
            seen.add(step)
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    os.waitpid(fork(full, folder / "full"), 0)
    print(json.dumps({"kills": killed, "status": os.waitstatus_to_exitcode(status), "seen": len(seen)}))


def full(folder):
    """Save once, then again where no file may grow beyond 2,000 bytes."""
    made = engine(folder, steps=40)
    made.run(5).save()
    made.run(5)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    try:
        made.save()
    except CheckpointError as error:
        (folder / "message").write_text(str(error))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"curve": curve, "crashes": crashes}[sys.argv[1]](*sys.argv[2:])
