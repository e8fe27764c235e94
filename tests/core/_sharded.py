"""DMD2 on a ring of Gaussians, with all that sharding must hold; the tests run it as a process of its own, which forks.

python _sharded.py FOLDER RECIPE      writes FOLDER/NAME.json for each of the runs in `main`
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from distill.core import Engine, Optimiser, Role, Sampler, Samples, assemble, batches, checkpoint, scale
from distill.core.commands import fit
from distill.core.contracts import RoleSpec
from distill.core.recipe import load_recipe
from distill.core.registry import default_registry
from distill.core.run import prepare
from distill.methods.networks import MLPDenoiser
from distill.methods.papers.dmd2 import DMD2
from distill.methods.transforms import LoRA

FAST = Optimiser(lr=1e-2, clip=0.5, weight_decay=0.1)
COPIES = DMD2(
    times=(1.0, 0.5), critic_updates=2, steps=6, critic_sees_step=True, student_ema=0.9, student_optimiser=FAST,
    critic_optimiser=FAST,
)  # fmt: skip
METHODS = {"copies": COPIES, "adapters": COPIES.model_copy(update={"critic_sees_step": False, "student_ema": None})}
EXTRA = {
    "copies": {},
    "adapters": {name: RoleSpec(shares="teacher", transforms=(LoRA(rank=2),)) for name in ("student", "critic")},
}


def engine(kind, shard, folder=None, **options):
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(rank)
    teacher = Role("teacher", MLPDenoiser(width=15, depth=4).build())
    roles = assemble(METHODS[kind], {"teacher": teacher}, EXTRA[kind])
    data = Samples(x=torch.randn(100, 2, generator=torch.Generator().manual_seed(7)))
    source = partial(batches, data, 24, seed=1)
    return Engine(
        roles, METHODS[kind].plan(Sampler()), lambda start: source(start=start, rank=rank, world=world), seed=3,
        accelerator=accelerator, shard=shard, checkpoint_activations=shard, folder=folder, **options,
    )  # fmt: skip


def train(out, kind="copies", shard=False, steps=6, folder=None, every=0):
    """Go on for so many steps from the last checkpoint, if there is one; what was learnt is written to `out`."""
    lines = []
    made = engine(kind, shard, folder, checkpoint_every=every, keep=9, on_step=lambda _, metrics: lines.append(metrics))
    for name in ("student", "critic"):  # as a probe does, which leaves weights gathered
        made.roles[name].ask(*made.roles[name].denoiser.example(2))
    last = made.last_checkpoint()
    (made.resume(last) if last else made).run(steps)
    weights = {
        f"{name}.{key}": scale.whole(value).tolist()
        for name in made.saved_roles()
        for key, value in made.roles[name].tensors().items()
    }
    held, kept = (
        sum(size(p).numel() for r in made.roles.values() for p in r.parameters()) for size in (scale.local, lambda p: p)
    )
    if made.accelerator.is_main_process:
        out.write_text(json.dumps({"curve": lines, "weights": weights, "share": held / kept}))
    made.accelerator.wait_for_everyone()


def told(recipe, folder):
    """A run of a recipe, as `distill train` makes it."""
    values, source = load_recipe(recipe, ["shard=true", "checkpoint_activations=true", "preview_every=3"])
    fit(prepare(values, source, default_registry()), folder)


def start(world, *args, work=train, **options):
    """Work in so many children. The parent never runs a backward pass, so that forking is safe."""
    store, children = Path(tempfile.mkdtemp()) / "store", []
    for rank in range(world):
        children.append(os.fork())
        if not children[-1]:
            torch.set_num_threads(1)  # mends torch's pool here, alone; else threads race to do it, and one aborts
            AcceleratorState._reset_state(reset_partial_state=True)
            if world > 1:
                torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=world)
                ranks = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
                os.environ |= {name: str(value) for name, value in ranks.items()}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
            work(*args, **options)
            os._exit(0)
    return children


def wait(children):
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)


def crash(folder):
    """Train in two processes, killed in turn while shares are written and when a checkpoint has appeared; what is then
    seen must be whole."""
    seen, checkpoints, work = set(), folder / "killed" / "checkpoints", {"folder": folder / "killed", "every": 1}
    for writing in (True, False, False):
        children = start(2, folder / "killed.json", shard=True, **work)
        while not (any(checkpoints.glob(".step-*")) if writing else set(checkpoint.steps(checkpoints)) - seen):
            assert not any(os.waitpid(child, os.WNOHANG)[0] for child in children), "a process ended by itself"
            time.sleep(1e-4)
        for child in children:
            os.kill(child, signal.SIGKILL)
        assert any([os.waitpid(child, 0)[1] for child in children])
        for step in checkpoint.steps(checkpoints):
            checkpoint.read(checkpoints / f"step-{step}")
            seen.add(step)
    wait(start(2, folder / "killed.json", shard=True, **work))
    return {"seen": len(seen)}


def main(folder, recipe):
    folder.mkdir()
    tempfile.tempdir = str(folder)
    engine("copies", False).run(0)  # the slow imports, once for all children
    for kind in METHODS:
        wait(start(2, folder / f"{kind}-shared.json", kind, shard=True, folder=folder / kind, every=3))
        wait(start(1, folder / f"{kind}.json", kind, folder=folder / f"{kind}-whole", every=3))
    for name in ("copies", "copies-whole"):
        shutil.rmtree(folder / name / "checkpoints" / "step-6")
    shutil.copytree(folder / "copies", folder / "copies-3")
    wait(start(1, folder / "resumed-1.json", folder=folder / "copies"))
    wait(start(3, folder / "resumed-3.json", shard=True, folder=folder / "copies-3"))
    wait(start(2, folder / "adopted.json", shard=True, folder=folder / "copies-whole"))
    wait(start(2, recipe, folder / "told", work=told))
    (folder / "report.json").write_text(json.dumps(crash(folder)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(Path, sys.argv[1:]))
