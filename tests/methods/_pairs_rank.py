"""One of several processes that fill a store of pairs: says which shards it made."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh

from distill.core import Batch, Context, Rng, Role, Roles, Sampler, scale
from distill.methods.networks import MLPDenoiser
from distill.methods.pairs import MakePairs


class Noted(MakePairs):
    """Takes its time, so that the other one gets a share, and notes the first record of every shard."""

    def _numbered(self, rows, batch, ctx, records):
        MADE.append(records.start)
        time.sleep(0.02)
        return super()._numbered(rows, batch, ctx, records)


MADE: list[int] = []
out, accelerator = Path(sys.argv[1]), Accelerator(cpu=True)
assert torch.distributed.get_backend() == "gloo" and accelerator.num_processes == 2
torch.manual_seed(0)
network = MLPDenoiser(width=16, depth=2, classes=3)
roles = Roles({name: Role(name, network.build()) for name in ("teacher", "student")})
ctx = Context(roles, Rng(0, rank=accelerator.process_index, world=2))
if shard := sys.argv[2] == "shard":
    scale.shard(roles, init_device_mesh("cpu", (2,)))
batch = Batch(64, cond={"label": torch.arange(64) % 3}, shape=(2,))
accelerator.wait_for_everyone()
Noted(count=512, chunk=16, store=out / "shared", sampler=Sampler(steps=2)).fit(batch, ctx, None)
assert len(ctx.stores["pairs"].read(range(512))["end"]) == 512
(out / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(MADE))
