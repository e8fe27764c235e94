"""The one training loop. It owns optimisers, accumulation, precision, clipping, checkpoints and the order of
things."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import broadcast
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.utils.data import Dataset

from distill.core import checkpoint, scale
from distill.core.contracts import Batch, Context, Event, Lens, Subject
from distill.core.errors import CheckpointError, CollapsedError, NonFiniteError, RecipeError
from distill.core.plan import Phase, Plan, Update
from distill.core.rng import Rng
from distill.core.roles import Roles
from distill.core.sampling import Sampler

Metrics = dict[str, float]
MALFORMED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a state raises that is not of the expected form."""


class Engine:
    """Runs a plan over roles and batches.

    Args:
        roles: who takes part; moved to the accelerator's device.
        plan: what happens.
        data: gives an endless iterator of this process's batches from a number on
            (`functools.partial(batches, ...)`).
        seed: seed of every random stream.
        accumulate: micro-batches per optimiser step.
        accelerator: device, precision and processes; a plain one if None. Gradients are averaged over
            processes.
        folder: where checkpoints go; none are written if None.
        checkpoint_every: iterations between checkpoints; 0 writes the last one only.
        shard: leave a share of each denoiser's weights, gradients and optimiser states on every process.
        checkpoint_activations: compute the activations of denoisers' blocks again instead of keeping them.
        dataset: what the batches are drawn from, for what is made of it once and not batch by batch.
        on_step: called after each iteration with the engine and its metrics, on every process.
    """

    def __init__(
        self,
        roles: Roles,
        plan: Plan,
        data: Callable[[int], Iterator[Batch]],
        *,
        seed: int = 0,
        accumulate: int = 1,
        accelerator: Accelerator | None = None,
        lens: Lens | None = None,
        folder: Path | None = None,
        checkpoint_every: int = 0,
        checkpoint_activations: bool = False,
        shard: bool = False,
        keep: int = 3,
        identity: Mapping[str, Any] | None = None,
        dataset: Dataset[Any] | None = None,
        on_step: Callable[[Engine, Metrics], None] | None = None,
    ) -> None:
        plan.check(roles)
        self.accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
        self.roles, self.plan, self.data, self.accumulate = roles, plan, data, accumulate
        self.folder, self.checkpoint_every, self.keep = folder, checkpoint_every, keep
        self.identity, self.on_step = json.loads(json.dumps(dict(identity or {}))), on_step
        self.sampler: Sampler = plan.sampler
        self.step, self.phase_index, self.phase_step = 0, 0, 0
        self.seconds = 0.0
        device = self.accelerator.device
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        rng = Rng(seed, rank=rank, world=world, device=device)
        self.ctx = Context(roles, rng, lens=lens, folder=folder, dataset=dataset)
        self.optimisers: dict[str, Any] = {}
        torch.manual_seed(seed + self.accelerator.process_index)
        if checkpoint_activations:
            for role in roles.values():
                scale.checkpoint_activations(role.module)
        self.sharded = shard and world > 1
        self.leaves: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
        self._place(device)

    def _place(self, device: torch.device) -> None:
        """Move the roles to the device, equal on every process, and let gradient into those that losses move.

        A module that is shared follows the role that freezes it; only an adapter's own parameters are freed
        again.
        """
        learners = {name for phase in self.plan.phases for name in phase.moved if not self.roles[name].frozen}
        for role in sorted(self.roles.values(), key=lambda role: role.name not in learners):
            role.module.to("cpu" if self.sharded else device).train(role.name in learners)
            if role.own is None:
                role.module.requires_grad_(role.name in learners)
            for tensor in role.tensors().values() if self.accelerator.num_processes > 1 else ():
                tensor.copy_(broadcast(tensor.to(device)))
        for name in learners:
            for parameter in self.roles[name].parameters():
                parameter.requires_grad_(True)
        if self.sharded:
            self.leaves = scale.shard(self.roles, init_device_mesh(device.type, (self.accelerator.num_processes,)))
            for role in self.roles.values():
                role.module.to(device)

    @property
    def phase(self) -> Phase:
        """The phase that is running."""
        return self.plan.phases[self.phase_index]

    def run(self, steps: int | None = None) -> Engine:
        """Go on to the end of the plan, or for so many iterations."""
        target = self.plan.steps if steps is None else self.step + steps
        batches = self.data(self.step * self.accumulate)
        while self.phase_index < len(self.plan.phases):
            if self.phase_step == 0 and not self.optimisers:
                self._open_phase()
            while self.phase_step < self.phase.steps:
                if self.step >= target:
                    return self
                self._iterate(batches)
            self._tell_time()
            for action in self.phase.at_end:
                action.apply(self.ctx)
            self.phase_index, self.phase_step, self.optimisers = self.phase_index + 1, 0, {}
        self._save()
        return self

    def _open_phase(self) -> None:
        """Calibrate, on a batch of its own so that the order of the training data stays, and make the
        optimisers."""
        self._tell_time()
        if self.phase.fit is not None:
            batch = next(self.data(self.step * self.accumulate))
            self.sampler = self.phase.fit.fit(batch, self.ctx, self.sampler)
        self._make_optimisers()

    def _tell_time(self) -> None:
        self.ctx.step, self.ctx.progress = self.step, self.phase_step / max(1, self.phase.steps)

    # ------------------------------------------------------------ one iteration

    def _iterate(self, batches: Iterator[Batch]) -> None:
        started = time.perf_counter()
        self._tell_time()
        micro = [next(batches) for _ in range(self.accumulate)]
        metrics: Metrics = {}
        for trajectory, updates in self.phase.groups(self.phase_step):
            moved = {role for update in updates for role in update.loss.moves}
            attached = bool(moved & set(trajectory.moves))
            streams = [iter(trajectory.events(batch, self.ctx, attached=attached)) for batch in micro]
            while self._learn(updates, streams, metrics):
                pass
        for action in self.phase.actions:
            if (self.phase_step + 1) % action.every == 0:
                action.apply(self.ctx)
        self.step, self.phase_step = self.step + 1, self.phase_step + 1
        self.seconds += time.perf_counter() - started
        if self.on_step is not None:
            self.on_step(self, metrics)
        if self.checkpoint_every and self.step % self.checkpoint_every == 0:
            self._save()

    def _learn(self, updates: list[Update], streams: list[Iterator[Event]], metrics: Metrics) -> bool:
        """One event of every micro-batch, then one optimiser step; false when the trajectories have no
        more."""
        seen: dict[str, list[Tensor]] = {}
        more = False
        for stream in streams:
            with self.accelerator.autocast():
                event = next(stream, None)
            if event is not None:
                more = True
                self._backward(updates, event, seen)
        if not more:
            return False
        self._note(seen, metrics)
        for role in self.roles.values():
            scale.settle(role.module)
        for name in dict.fromkeys(role for update in updates for role in update.loss.moves):
            metrics.update(self._step_role(name))
        return True

    def _backward(self, updates: list[Update], event: Event, seen: dict[str, list[Tensor]]) -> None:
        buckets: dict[tuple[str, ...], list[Update]] = {}
        for update in updates:
            buckets.setdefault(update.loss.moves, []).append(update)
        through = set(updates[0].trajectory.moves)
        last = max((place for place, moves in enumerate(buckets) if through & set(moves)), default=-1)
        for place, (moves, bucket) in enumerate(buckets.items()):
            total: Any = 0.0
            for update in bucket:
                with self.accelerator.autocast():
                    terms = update.loss.terms(event, self.ctx)
                for name, value in terms.items():
                    value = value.float()
                    if event.weight is not None and value.ndim:
                        value = value * event.weight
                    value = value.mean()
                    seen.setdefault(name, []).append(value.detach())
                    total = total + update.loss.weight * value
            self._pull(total, moves, bucket, keep=place < last)

    def _pull(self, total: Any, moves: tuple[str, ...], bucket: list[Update], *, keep: bool) -> None:
        """Gradient of a loss with respect to the roles that it names, and nobody else.

        `keep` holds the event's graph for a later loss that needs it too.
        """
        if not isinstance(total, Tensor):
            return
        inputs = [self.leaves.get(p, p) for name in moves for p in self._moved_by(name)]
        if not total.requires_grad or not inputs:
            losses = ", ".join(type(update.loss).__name__ for update in bucket)
            names = ", ".join(moves)
            raise RecipeError(f"the gradient of {losses} does not reach {names}: is the event detached?")
        self.accelerator.backward(total / self.accumulate, inputs=inputs, retain_graph=keep)

    def _note(self, seen: dict[str, list[Tensor]], metrics: Metrics) -> None:
        """Keep the terms' means; stop before anything is applied if one is not finite."""
        if not seen:
            return
        values = torch.stack([torch.stack(values).mean() for values in seen.values()])
        values = self.accelerator.reduce(values, "mean") if self.accelerator.num_processes > 1 else values
        for name, value in zip(seen, values.tolist(), strict=True):
            if not math.isfinite(value):
                self._stop(f"the term '{name}' became {value}")
            metrics[name] = value

    def _step_role(self, name: str) -> Metrics:
        role, optimiser, settings = self.roles[name], self.optimisers[name], self.phase.optimisers[name]
        parameters = self._moved_by(name)
        self._average([p for p in parameters if not isinstance(p, DTensor)])
        moved = [p for p in parameters if p.grad is not None]
        if not moved:
            return {}
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.unscale_(optimiser.optimizer)
        total = scale.whole(torch.nn.utils.get_total_norm([p.grad for p in moved if p.grad is not None]))
        norm = float(total)
        if settings.clip is not None and norm > settings.clip - 1e-5:  # below, clipping multiplies by 1
            torch.nn.utils.clip_grads_with_norm_(moved, settings.clip, total)
        if not math.isfinite(norm) and self.accelerator.scaler is None:
            self._stop(f"the gradient of role '{name}' became {norm}")
        for group in optimiser.param_groups:
            group["lr"] = group.get("factor", 1.0) * settings.rate(self.phase_step, self.phase.steps)
        optimiser.step()
        optimiser.optimizer.zero_grad(set_to_none=True)
        if isinstance(role.module, Subject):
            self._end_step(name, role.module)
        return {f"{name}_grad_norm": norm}

    def _end_step(self, name: str, subject: Subject) -> None:
        """Let a subject replace parameters; its new optimiser remembers what the subject carries over."""
        before, old = self.roles[name].named_parameters(), self.optimisers[name].optimizer.state
        try:
            replaced = subject.on_step_end()
        except CollapsedError as error:
            raise CollapsedError(f"training stopped at step {self.step}: {error}; {self._kept()}") from error
        if not replaced:
            return
        self.optimisers[name] = self._optimiser(name)
        for key, parameter in self.roles[name].named_parameters().items():
            known = old.get(before.get(key), {}).items()
            kept = {what: value if value.ndim == 0 else subject.carry(key, value) for what, value in known}
            if kept and all(value is not None for value in kept.values()):
                self.optimisers[name].optimizer.state[parameter] = kept

    def _average(self, parameters: list[torch.nn.Parameter]) -> None:
        """Mean gradient over processes, in one message; a parameter that no process used stays without."""
        if self.accelerator.num_processes == 1 or not parameters:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = torch.tensor([p.grad is not None for p in parameters], device=self.accelerator.device)
        flat = self.accelerator.reduce(torch.cat([*(g.flatten() for g in grads), used.float()]), "mean")
        parts = torch.split(flat, [*(p.numel() for p in parameters), len(parameters)])
        for p, part, share in zip(parameters, parts[:-1], parts[-1].tolist(), strict=True):
            # in the parameter's own memory layout, which the fused optimiser takes for granted
            p.grad = torch.empty_like(p).copy_(part.view_as(p)) if share else None

    def _stop(self, why: str) -> None:
        raise NonFiniteError(
            f"training stopped at step {self.step}: {why}; it was not applied, and {self._kept()}. "
            "Try a smaller learning rate, a tighter clip, or fp32; --debug shows where it arose."
        )

    def _kept(self) -> str:
        last = self.last_checkpoint()
        return f"the last good checkpoint is {last}" if last else "no checkpoint was written before"

    # ------------------------------------------------------------ optimisers and checkpoints

    def _optimiser(self, name: str) -> Any:
        module = self.roles[name].module
        rates = module.rates if isinstance(module, Subject) else {}
        named = {n: p for n, p in self.roles[name].named_parameters().items() if p.requires_grad}
        parameters: Any = list(named.values())
        if rates:
            parameters = [{"params": [p], "factor": rates.get(n, 1.0)} for n, p in named.items()]
        if not parameters:
            raise RecipeError(f"role '{name}' has no parameters to train: is it frozen, or exact?")
        built = self.phase.optimisers[name].build(parameters)
        return AcceleratedOptimizer(built, device_placement=False, scaler=self.accelerator.scaler)

    def _moved_by(self, name: str) -> list[torch.nn.Parameter]:
        """The parameters that a role's optimiser moves; cheaper than to look for them in the module."""
        return [parameter for group in self.optimisers[name].param_groups for parameter in group["params"]]

    def _make_optimisers(self) -> None:
        self.optimisers = {name: self._optimiser(name) for name in sorted(self.phase.moved)}

    def saved_roles(self) -> list[str]:
        """Roles whose weights a checkpoint holds: those that the plan changes, and the result."""
        return sorted(self.plan.changed() | {self.plan.result} & set(self.roles))

    def _save(self) -> None:
        """Write a checkpoint by the main process, or by all where each holds its share."""
        if self.folder is not None and (self.sharded or self.accelerator.is_main_process):
            self.save()

    def save(self) -> Path:
        """Write a checkpoint of this very moment; where weights are sharded, every process calls this."""
        if self.folder is None:
            raise CheckpointError("this run has no folder to write a checkpoint to")
        files: dict[str, Mapping[str, Tensor]] = {}
        for name in self.saved_roles():
            files[f"role-{name}"] = self.roles[name].tensors()
        groups = {}
        for name, optimiser in self.optimisers.items():
            files[f"optimiser-{name}"], groups[name] = checkpoint.flatten_optimiser(optimiser.state_dict())
        files["rng"] = self.ctx.rng.state()
        files["torch"] = {"cpu": torch.get_rng_state()}
        if self.accelerator.device.type == "cuda":
            files["torch"] = {**files["torch"], "cuda": torch.cuda.get_rng_state(self.accelerator.device)}
        files["state"] = self.ctx.state
        progress = {"step": self.step, "phase": self.phase_index, "phase_step": self.phase_step}
        state = {
            "progress": progress,
            "optimisers": groups,
            "scaler": {} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "sampler": self.sampler.model_dump(mode="json"),
            "result": self.plan.result,
            "identity": self.identity,
        }
        path = self.folder / "checkpoints" / f"step-{self.step}"
        shares = self._save_shares(path, files) if self.sharded else None
        if self.accelerator.is_main_process:
            checkpoint.write(path, files, state, shares)
            checkpoint.prune(path.parent, self.keep)
        if self.sharded:
            self.accelerator.wait_for_everyone()
        return path

    def _save_shares(self, path: Path, files: dict[str, Mapping[str, Tensor]]) -> Path:
        """Write the files that hold shares aside, each process its own, and take them out of `files`."""
        aside = checkpoint.aside_of(path, ".shares")
        shared = [name for name, own in files.items() if any(isinstance(value, DTensor) for value in own.values())]
        if self.accelerator.is_main_process:
            shutil.rmtree(aside, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        scale.save(aside, {name: files.pop(name) for name in shared})
        return aside

    def last_checkpoint(self) -> Path | None:
        """The newest finished checkpoint of this run, if any."""
        if self.folder is None:
            return None
        steps = checkpoint.steps(self.folder / "checkpoints")
        return self.folder / "checkpoints" / f"step-{steps[-1]}" if steps else None

    def resume(self, folder: Path) -> Engine:
        """Put everything back to where a checkpoint was written."""
        files, state = checkpoint.read(folder, gather=not self.sharded)
        try:
            self._compare(folder, state["identity"])
            self._restore(files, state, folder / checkpoint.SHARES)
        except (*MALFORMED, RecipeError) as error:
            raise checkpoint.damaged(folder / "state.json", f"it does not fit this run: {error}") from error
        self._reopen()
        return self

    def _reopen(self) -> None:
        """Let the fits that are over put back what lies outside of checkpoints."""
        begun = 0
        for phase in self.plan.phases[: self.phase_index + bool(self.phase_step)]:
            if phase.fit is not None:
                phase.fit.reopen(next(self.data(begun * self.accumulate)), self.ctx)
            begun += phase.steps

    def _compare(self, folder: Path, theirs: dict[str, Any]) -> None:
        mine = self.identity
        if odd := sorted(name for name in theirs | mine if theirs.get(name) != mine.get(name)):
            raise CheckpointError(
                f"{folder} was written by another run: {', '.join(odd)} differ. Resume with the recipe and "
                "versions that it was made with, or allow the difference with --resume-anyway."
            )

    def _restore(self, files: dict[str, dict[str, Tensor]], state: dict[str, Any], shares: Path) -> None:
        progress = {name: int(value) for name, value in state["progress"].items()}
        self.step, self.phase_step = progress["step"], progress["phase_step"]
        self.phase_index = progress["phase"]
        self.sampler = type(self.plan.sampler).model_validate(state["sampler"])
        shared = self.sharded and shares.is_dir()
        if shared:
            mine = {
                f"role-{n}/{key}": value for n in self.saved_roles() for key, value in self.roles[n].tensors().items()
            }
            files |= scale.load(shares, lambda key, whole: mine.get(key))
        for name in self.saved_roles():
            role, tensors = self.roles[name], files[f"role-{name}"]
            if isinstance(role.module, Subject):
                role.module.adopt(tensors)
            role.load(tensors)
        self.optimisers = {}
        if state["optimisers"]:
            self._make_optimisers()
        if shared:
            files |= scale.load(shares, self._state_of)
        for name, optimiser in self.optimisers.items():
            tensors, groups = files[f"optimiser-{name}"], state["optimisers"][name]
            if self.sharded and not shared:
                tensors = {key: self._shared(f"optimiser-{name}/{key}", value) for key, value in tensors.items()}
            optimiser.load_state_dict(checkpoint.unflatten_optimiser(tensors, groups))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self._restore_torch(files["torch"])
        self.ctx.rng.restore(files["rng"])
        self.ctx.state.clear()
        for name, value in files["state"].items():
            self.ctx.state[name] = value.to(self.accelerator.device)

    def _state_of(self, key: str, whole: Tensor) -> Tensor | None:
        """Where a saved tensor of an optimiser goes: a share like its parameter's, or the whole tensor."""
        kind, _, rest = key.partition("-")
        name, _, place = rest.partition("/")
        if kind != "optimiser":
            return None
        like = self._moved_by(name)[int(place.partition(".")[0])]
        return torch.zeros_like(like.detach()) if like.shape == whole.shape else whole

    def _shared(self, key: str, whole: Tensor) -> Tensor:
        share = self._state_of(key, whole)
        assert share is not None
        scale.fill(share, whole)
        return share

    def _restore_torch(self, positions: Mapping[str, Tensor]) -> None:
        """The global generators, which dropout uses; the main process's were saved, others start anew from
        the step."""
        if not self.accelerator.is_main_process:
            torch.manual_seed(self.ctx.rng.seed + self.accelerator.process_index + 1_000_003 * self.step)
            return
        torch.set_rng_state(positions["cpu"])
        if "cuda" in positions and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(positions["cuda"], self.accelerator.device)
