"""Students as others load them: a pipeline of diffusers, a LoRA of peft, or one file of weights; each with its card."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from distill.core import Denoiser, DistillError, GaussianPath, Sampler
from distill.core.contracts import Outcome
from distill.core.errors import RecipeError
from distill.core.paths import Flow
from distill.image import schedulers
from distill.image.asked import Asked, Retimed
from distill.image.pipeline import Pipeline

UNSAFE = {".bin", ".ckpt", ".pt", ".pth", ".pkl", ".msgpack", ".h5", ".onnx"}
"""Weights in pickles, or for other libraries: a copy of a folder leaves them out."""


@dataclass(frozen=True)
class Student:
    """What is exported, in diffusers' terms."""

    builder: Pipeline
    outcome: Outcome
    denoiser: Denoiser
    path: GaussianPath
    kind: str
    sampler: Sampler

    @classmethod
    def of(cls, builder: Pipeline, outcome: Outcome, denoiser: Denoiser) -> Student:
        """A run's outcome on the path of the pipeline's own scheduler."""
        if denoiser.scalars:
            names = ", ".join(denoiser.scalars)
            raise DistillError(f"diffusers has no place for the inputs {names}: train without them to export")
        network, sampler = denoiser.network, outcome.sampler
        if isinstance(denoiser.path, Flow) and "sigmas" not in inspect.signature(builder.pipeline.__call__).parameters:
            # times in thousandths are told as they are, without the scheduler's shift
            sampler = sampler.model_copy(update={"times": sampler.grid_for(denoiser.path)[:-1]})
        if not isinstance(network, Retimed):
            return cls(builder, outcome, denoiser, denoiser.path, denoiser.kind, sampler)
        angles = torch.tensor(sampler.grid_for(denoiser.path)[:-1], dtype=torch.float64)
        moved = sampler.model_copy(update={"times": tuple(network.time(angles).tolist())})
        return cls(builder, outcome, denoiser, network.source, network.kind, moved)

    @property
    def net(self) -> Any:
        """The network itself."""
        return self.denoiser.network.get_submodule("net")

    @cached_property
    def scheduler(self) -> Any:
        """The scheduler that moves as the student's sampler does."""
        return schedulers.scheduler(
            self.path, self.kind, self.sampler, variance=self.builder.family.variance, scaled=self.builder.family.scaled
        )

    def call(self) -> dict[str, Any]:
        """Arguments of the pipeline's call with which it samples as the student does."""
        family, calls = self.builder.family, inspect.signature(self.builder.pipeline.__call__).parameters
        argument = "sigmas" if isinstance(self.path, Flow) and "sigmas" in calls else "timesteps"
        values = schedulers.times(self.path, self.sampler)
        values = [1000 * t for t in values] if isinstance(self.path, Flow) and argument == "timesteps" else values
        told = (
            family.told and argument in calls and argument in inspect.signature(self.scheduler.set_timesteps).parameters
        )
        if not told and not schedulers.even(self.path, self.sampler):
            raise DistillError(
                f"{self.builder.pipeline.__name__} cannot be told at which times to sample, and the student's are "
                f"{values}: train it at even times, or export to safetensors"
            )
        when = {argument: values} if told else {}
        height, width = (side * self.builder._factor() for side in self._side)
        said = {"num_inference_steps": len(values), **when, "height": height, "width": width, **family.options}
        said |= self._guidance(calls)
        return said | ({"max_sequence_length": self.builder.tokens} if self.builder.tokens else {})

    @property
    def _side(self) -> tuple[int, int]:
        assert isinstance(self.denoiser.shape, tuple)
        return self.denoiser.shape[1], self.denoiser.shape[2]

    def _guidance(self, calls: Mapping[str, Any]) -> dict[str, Any]:
        family, sampler = self.builder.family, self.sampler
        odd = {"interval": sampler.interval, "a negative condition": sampler.negative, "extra inputs": sampler.scalars,
               "a free first step": sampler.free_first, "an end above 0": sampler.end}  # fmt: skip
        w = sampler.guidance
        odd |= {"rescaled guidance": sampler.rescale and "guidance_rescale" not in calls}
        if (said := ", ".join(name for name, value in odd.items() if value)) or isinstance(w, dict):
            said = said or "a guidance for each modality"
            raise DistillError(f"{self.builder.pipeline.__name__} cannot sample with {said}: export to safetensors")
        fed = {family.embedded: self._fed} if family.embedded and self._fed is not None else {}
        rescale = {"guidance_rescale": sampler.rescale} if sampler.rescale else {}
        # a pipeline with two weights guides only where it is given something to guide away from
        null = {"negative_prompt": ""} if family.cfg == "true_cfg_scale" and w != 1 else {}
        return {family.cfg: w - family.cfg_offset, **rescale, **fed, **null}

    @property
    def _fed(self) -> float | None:
        network = self.denoiser.network
        assert isinstance(network, Asked)
        return network.setting.guidance if self.net.config.get("guidance_embeds") else None

    def start(self) -> float:
        """Factor on the latents with which the pipeline starts where the student does."""
        own = float(self.denoiser.path.sigma(torch.tensor(float(self.outcome.sampler.grid_for(self.denoiser.path)[0]))))
        first = torch.tensor(self.sampler.grid_for(self.path)[0], dtype=torch.float64)
        scaled = type(self.scheduler).__name__ == "EulerDiscreteScheduler"  # it multiplies latents by σ/α itself
        theirs = float(self.path.sigma(first)) if scaled else 1.0
        return own / theirs


def write(builder: Pipeline, outcome: Outcome, to: str, folder: Path) -> list[Path]:
    """Write a run's outcome in a format, into a folder that is new or empty; nothing is left there if it fails."""
    if to not in FORMATS:
        raise RecipeError(f"a pipeline cannot be exported to '{to}'; choose one of {', '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder} holds something already: choose another folder with --out")
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        FORMATS[to](builder, outcome, aside)
        if folder.exists():
            folder.rmdir()
        aside.replace(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return sorted(folder.iterdir())


# ---------------------------------------------------------------- formats


def _diffusers(builder: Pipeline, outcome: Outcome, folder: Path) -> None:
    """Everything of the teacher's folder but network and scheduler, which are the student's."""
    student = Student.of(builder, outcome, outcome.role.alone())
    call, index, name = student.call(), dict(builder.index), builder.family.network
    student.scheduler.save_pretrained(folder / "scheduler")
    student.net.save_pretrained(folder / name)
    for part in index:
        if (builder.folder / part).is_dir() and part not in (name, "scheduler"):
            shutil.copytree(builder.folder / part, folder / part, ignore=_unsafe)
    index["scheduler"] = ["diffusers", type(student.scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    _describe(student, call, folder, LOADING["diffusers"])


def _peft(builder: Pipeline, outcome: Outcome, folder: Path) -> None:
    """The adapter's own weights, under the names and with the config that `load_lora_weights` reads."""
    role, pipeline, part = outcome.role, builder.pipeline, builder.family.network
    if not role.own or not all(".lora_" in name for name in role.own):
        raise DistillError(
            f"the {role.name} is no LoRA student: give it transforms: [lora] under 'roles:', or export to diffusers"
        )
    if "save_lora_weights" not in vars(_bases(pipeline)):
        raise DistillError(f"{pipeline.__name__} loads no LoRA: export to diffusers")
    student = Student.of(builder, outcome, role.denoiser)
    call, config = student.call(), role.denoiser.network.peft_config[role.name].to_dict()  # type: ignore[union-attr, index]
    config["target_modules"] = sorted(name.removeprefix("net.") for name in config["target_modules"])
    weights = {name.removeprefix("net."): value.detach().cpu().contiguous() for name, value in role.own.items()}
    pipeline.save_lora_weights(folder, **{f"{part}_lora_layers": weights, f"{part}_lora_adapter_metadata": config})
    student.scheduler.save_pretrained(folder / "scheduler")
    _describe(student, call, folder, LOADING["peft-lora"])


def _safetensors(builder: Pipeline, outcome: Outcome, folder: Path) -> None:
    """The network in one file, with the names that its class in diffusers has, and the sampler."""
    denoiser, name = outcome.role.alone(), builder.family.network
    net: Any = denoiser.network.get_submodule("net")
    tensors = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt"})
    net.save_config(folder)
    facts = {"sampler": outcome.sampler.model_dump(mode="json"), "inputs": list(denoiser.scalars)}
    (folder / "sampler.json").write_text(json.dumps(facts, indent=1) + "\n")
    loading = LOADING["safetensors"].format(kind=type(net).__name__, name=name)
    (folder / "README.md").write_text(card(builder, outcome, loading, len(outcome.sampler.grid_for(denoiser.path)) - 1))


FORMATS: dict[str, Callable[[Pipeline, Outcome, Path], None]] = {
    "diffusers": _diffusers, "peft-lora": _peft, "safetensors": _safetensors,
}  # fmt: skip


def _bases(pipeline: Any) -> Any:
    """The class of a pipeline's own that loads adapters, where there is one."""
    return next((base for base in pipeline.__mro__ if "save_lora_weights" in vars(base)), object)


def _unsafe(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(name).suffix in UNSAFE]


# ---------------------------------------------------------------- the card

LOADING = {
    "diffusers": """from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("{folder}")
picture = pipe(prompt="a prompt", {call}).images[0]""",
    "peft-lora": """from diffusers import DiffusionPipeline, {scheduler}

pipe = DiffusionPipeline.from_pretrained("{teacher}")
pipe.load_lora_weights("{folder}")
pipe.scheduler = {scheduler}.from_pretrained("{folder}", subfolder="scheduler")
picture = pipe(prompt="a prompt", {call}).images[0]""",
    "safetensors": """from diffusers import {kind}
from safetensors.torch import load_file

network = {kind}.from_config({kind}.load_config("."))
network.load_state_dict(load_file("{name}.safetensors"))""",
}


def _describe(student: Student, call: Mapping[str, Any], folder: Path, loading: str) -> None:
    """sampler.json, which programs read, and README.md, which people do."""
    start = student.start()
    facts = {"sampler": student.sampler.model_dump(mode="json"), "call": dict(call), "latents_factor": start}
    (folder / "sampler.json").write_text(json.dumps(facts, indent=1) + "\n")
    scheduler = type(student.scheduler).__name__
    shown = ", ".join(f"{name}={value!r}" for name, value in call.items())
    code = loading.format(folder="this-folder", call=shown, teacher=student.builder.model, scheduler=scheduler)
    if abs(start - 1) > 1e-6:
        code += f"\n# Latents that you pass are to be multiplied by {start:.6f}: the student starts there."
    text = card(student.builder, student.outcome, code, call["num_inference_steps"])
    (folder / "README.md").write_text(text)


def card(builder: Pipeline, outcome: Outcome, code: str, steps: int) -> str:
    """A model card: method, teacher, steps, guidance, metrics, versions, licence."""
    facts, teacher = outcome.facts, _front(builder.folder / "README.md")
    head = {
        "library_name": "diffusers", "pipeline_tag": "text-to-image", "base_model": _origin(builder),
        "base_model_relation": "finetune", "license": teacher.get("license", "other"),
        "tags": ["distill", "few-step", _name(facts.get("method", "unknown"))],
    }  # fmt: skip
    named = teacher if "license" in teacher else {"license_name": "unknown"}
    head |= {name: named[name] for name in ("license_name", "license_link") if name in named}
    rows = {
        "Method": _name(facts.get("method", "unknown")), "Teacher": _origin(builder),
        "Pipeline": builder.pipeline.__name__, "Steps": steps, "Guidance": f"{outcome.sampler.guidance:g}",
        "Licence": _licence(teacher),
    }  # fmt: skip
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n", f"# A few-step student of {Path(builder.model).name}\n",
        _table(("", ""), [(name, value) for name, value in rows.items()]), f"```python\n{code}\n```\n",
        _metrics(facts.get("metrics") or {}),
        _table(("distribution", "version"), sorted((facts.get("versions") or {}).items())),
        f"## Recipe\n\n```yaml\n{facts['recipe']}```\n" if facts.get("recipe") else "",
    ]  # fmt: skip
    return "\n".join(filter(None, parts))


def _name(reference: Any) -> str:
    return str(reference.get("name", "unknown")) if isinstance(reference, Mapping) else str(reference)


def _origin(builder: Pipeline) -> str:
    """The teacher's hub id, or the name of its folder."""
    return Path(builder.model).name if Path(builder.model).is_dir() else builder.model


def _licence(teacher: Mapping[str, Any]) -> str:
    said = teacher.get("license_name") or teacher.get("license")
    return f"that of the teacher: {said}" if said else "that of the teacher, whose folder names none"


def _front(path: Path) -> dict[str, Any]:
    """The YAML head of a model card; empty where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    _, _, rest = text.partition("---\n")
    head, end, _ = rest.partition("\n---")
    try:
        found = yaml.safe_load(head) if end else {}
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _metrics(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [(title, *(f"{row[name]:.4g}" if name in row else "" for name in names)) for title, row in rows.items()]
    return _table(("", *names), cells) if rows else "Metrics: none were measured.\n"


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines) if rows else ""
