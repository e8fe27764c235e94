"""Any text-to-image pipeline of diffusers as a teacher: everything is read from its folder."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError, safe_open
from torch import Tensor

from distill.core import Builder, Denoiser, DistillError, Lens, Modality, Sampler, State
from distill.core.contracts import Outcome
from distill.core.errors import RecipeError
from distill.core.paths import Trigonometric
from distill.core.sampling import DDIM, Grid
from distill.image import schedulers
from distill.image.asked import Asked, Setting, retimed
from distill.image.families import FAMILIES, Family
from distill.image.modality import Image
from distill.image.prompts import Encoder
from distill.image.refused import why
from distill.methods.pipelines import quiet

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Pipeline(Builder):
    """A text-to-image pipeline that `save_pretrained` wrote, or a hub id.

    Network, path, parameterisation, text encoders, decoder, null condition and guidance are the folder's own.
    """

    example: ClassVar[dict[str, Any]] = {"model": "stable-diffusion"}
    conformance: ClassVar[dict[str, str]] = {
        name: "there is no folder of a pipeline that every machine has"
        for name in ("shape", "times", "permutation", "randomness", "serialisation", "taps")
    }
    families: ClassVar[Mapping[str, Family]] = FAMILIES
    """The families that this class reads, by their pipeline's name."""

    model: str
    """Folder of a saved pipeline, or a hub id."""
    size: PositiveInt | None = None
    """Pixels per side; the pipeline's own if None."""
    tokens: PositiveInt | None = None
    """Length of the text; the pipeline's own if None."""
    steps: PositiveInt | None = None
    """Steps of the teacher's own sampler; the pipeline's default if None."""
    guidance: float | None = None
    """w of the teacher's own sampler, or what a guidance-distilled network is fed; the pipeline's default if None."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the network's weights."""
    path: Literal["", "trigonometric"] = ""
    """The folder's own path, or the same network as a TrigFlow one, for continuous-time consistency."""

    @classmethod
    def reads(cls, model: str) -> bool:
        _family(cls, locate(model))
        return True

    @property
    def folder(self) -> Path:
        """Where the pipeline lies on this machine."""
        return locate(self.model)

    @property
    def family(self) -> Family:
        """The pipeline's row."""
        return _family(type(self), self.folder)

    @property
    def pipeline(self) -> Any:
        """The pipeline's class."""
        return _diffusers(self.index["_class_name"])

    @property
    def index(self) -> dict[str, Any]:
        """model_index.json."""
        return _index(self.folder)

    def build(self) -> Denoiser:
        net, family = self.network(), self.family
        path, kind = schedulers.read(self._scheduler())
        asked = Asked(net, family, self._setting())
        null = self.encoder().null
        denoiser = Denoiser(
            asked, path, kind, shape=self._shape(net.config), null=null,
            taps=[f"net.{tap}" for tap in _taps(family, net)], scalar_sites=[f"net.{site}" for site in family.sites],
            restore=family.restore,
        )  # fmt: skip
        return retimed(denoiser, Trigonometric()) if self.path else denoiser

    def network(self) -> Any:
        """The pipeline's network, with its weights."""
        name = self.family.network
        kind = _diffusers(self._part(name)[1])
        return _loaded(kind, self.folder, name, torch_dtype=DTYPES[self.dtype])

    def encoder(self) -> Encoder:
        """What makes conditions of prompts."""
        return Encoder(self.folder, self.pipeline, self.family, self.tokens)

    def encode(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        return self.encoder()(prompts)

    def modality(self) -> Modality | None:
        return LatentImage(model=self.model) if self.family.decoder else Image()

    def sampler(self) -> Sampler:
        calls, family = inspect.signature(self.pipeline.__call__).parameters, self.family
        default = 1.0 if self.index.get("is_distilled") else calls[family.cfg].default + family.cfg_offset
        plain = default if self.guidance is None else self.guidance
        steps = self.steps or calls["num_inference_steps"].default
        grid = Grid(shift=1.0 if self.path else family.shift(self._scheduler(), self._patches()))
        return Sampler(steps=steps, grid=grid, solver=DDIM(), guidance=1.0 if self._is_fed() else plain)

    def _is_fed(self) -> bool:
        """Whether the network takes a guidance weight as an input."""
        return bool(self.family.embedded and self._config(self.family.network).get("guidance_embeds"))

    def _setting(self) -> Setting:
        weight = 1.0
        if self._is_fed():
            asked = inspect.signature(self.pipeline.__call__).parameters[self.family.embedded].default
            weight = self.guidance if self.guidance is not None else asked or 1.0
        return Setting(weight, self._factor())

    def _part(self, name: str) -> list[str]:
        """Library and class of a part, as the index has them."""
        part = self.index.get(name)
        if not isinstance(part, list) or len(part) != 2 or part[0] != "diffusers":
            raise DistillError(f"{self.folder}/model_index.json names no {name} of diffusers, but {part}")
        return [str(word) for word in part]

    def _config(self, part: str) -> dict[str, Any]:
        return _json(self.folder / part / "config.json")

    def _scheduler(self) -> dict[str, Any]:
        return _json(self.folder / "scheduler" / "scheduler_config.json")

    def _factor(self) -> int:
        """Pixels per side of a latent, from the decoder's config."""
        if not self.family.decoder:
            return 1
        config = self._config(self.family.decoder)
        known = [config[name] for name in ("encoder_block_out_channels", "block_out_channels") if config.get(name)]
        halvings = len(known[0]) - 1 if known else len(config.get("temperal_downsample") or (1, 1, 1))
        return self.family.fold * int(2**halvings)

    def _side(self, config: Mapping[str, Any]) -> tuple[int, int]:
        if self.size is not None:
            side, rest = divmod(self.size, self._factor() * max(1, self.family.patch))
            if rest:
                raise RecipeError(f"pictures of {self.size} pixels cannot be cut into latents of {self._factor()}")
            return (self.size // self._factor(),) * 2
        side = config.get("sample_size") or self.family.side
        return (side[0], side[1]) if isinstance(side, list | tuple) else (side, side)

    def _shape(self, config: Mapping[str, Any]) -> tuple[int, ...]:
        return (config[self.family.channels] // max(1, self.family.patch) ** 2, *self._side(config))

    def _patches(self) -> int:
        """Patches of 2×2 latents in a picture: what dynamic shifts of the time are counted in."""
        height, width = self._side(self._config(self.family.network))
        return (height // 2) * (width // 2)

    def exports(self) -> dict[str, Callable[..., list[Path]]]:
        from distill.image.export import FORMATS

        return dict.fromkeys(FORMATS, _needs_a_run)

    def export_outcome(self, outcome: Outcome, to: str, folder: Path) -> list[Path]:
        from distill.image.export import write

        return write(self, outcome, to, folder)


def _needs_a_run(*_: Any) -> list[Path]:
    raise DistillError("a pipeline is exported from a run: distill export RUN --to ...")


# ---------------------------------------------------------------- reading a folder


@lru_cache(maxsize=16)
def locate(model: str) -> Path:
    """The folder of a pipeline; one of the hub's is fetched, weights in safetensors only."""
    folder = Path(model).expanduser()
    if folder.is_dir() or folder.exists():
        return folder
    import diffusers
    from huggingface_hub.errors import HFValidationError

    try:
        found: Any = diffusers.DiffusionPipeline.download(model, use_safetensors=True)
    except (OSError, ValueError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DistillError(
            f"'{model}' is no folder here, and no pipeline of the hub that can be reached: {reason}"
        ) from error
    return Path(found)


def _index(folder: Path) -> dict[str, Any]:
    if not (folder / "model_index.json").is_file():
        raise DistillError(
            f"{folder} has no model_index.json, so it is no pipeline that diffusers saved. Give the folder of the "
            "whole pipeline; a network alone is loaded by the name of its denoiser (distill list denoisers)"
        )
    return _json(folder / "model_index.json", "_class_name")


def _json(path: Path, *keys: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DistillError(f"{path} cannot be read: {error}. Fetch the folder again.") from error
    if not isinstance(found, dict) or any(key not in found for key in keys):
        raise DistillError(f"{path} is no such file as diffusers writes: {', '.join(keys) or 'a mapping'} is missing")
    return found


def _family(reader: type[Pipeline], folder: Path) -> Family:
    name = str(_index(folder)["_class_name"])
    if name not in reader.families:
        if reason := why(name):
            raise DistillError(f"{folder} holds a {name}, which cannot be a teacher: {reason} (docs/families.md)")
        raise DistillError(
            f"{folder} holds a {name}, and the families that can be read are {', '.join(sorted(reader.families))}. A "
            "plugin adds one with a denoiser of its own: a subclass of distill.image.pipeline.Pipeline whose "
            f"`families` has a row for '{name}' (docs/families.md)"
        )
    return reader.families[name]


def _diffusers(name: str) -> Any:
    import diffusers

    with quiet():
        found = getattr(diffusers, name, None)
    if found is None:
        raise DistillError(f"diffusers {diffusers.__version__} has no {name}: pip install -U diffusers")
    return found


def _loaded(kind: Any, folder: Path, part: str, **options: Any) -> Any:
    try:
        with quiet():
            return kind.from_pretrained(folder, subfolder=part, use_safetensors=True, local_files_only=True, **options)
    except (AttributeError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        what, reason = _damaged(folder / part) or (folder / part, str(error).strip().splitlines()[0].rstrip("."))
        raise DistillError(f"{what} cannot be loaded: {reason}. Fetch it again.") from error


def _damaged(folder: Path) -> tuple[Path, str] | None:
    """The first weights of a folder whose header is not true of what follows it, and what is wrong with it."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                continue
        except (OSError, SafetensorError) as error:
            return path, str(error)
    return None


def _taps(family: Family, net: Any) -> list[str]:
    """The family's taps, `{}` being the middle of a list of layers."""
    return [tap.format(len(net.get_submodule(tap.partition(".")[0])) // 2) if "{}" in tap else tap
            for tap in family.taps]  # fmt: skip


# ---------------------------------------------------------------- decoders


@lru_cache(maxsize=2)
def decoder(model: str) -> Any:
    """The frozen decoder of a pipeline."""
    builder = Pipeline(model=model)
    family = builder.family
    vae = _loaded(_diffusers(builder._part(family.decoder)[1]), builder.folder, family.decoder)
    return vae.eval().requires_grad_(False)


class Decode(Lens):
    """Latents to the pictures that a pipeline's decoder makes of them, in [−1, 1]."""

    example: ClassVar[dict[str, Any]] = {"model": "stable-diffusion"}
    conformance: ClassVar[dict[str, str]] = {"toy": "there is no folder of a pipeline that every machine has"}
    model: str
    """Folder of the pipeline, or a hub id."""

    def __call__(self, state: State) -> Any:
        assert isinstance(state, Tensor)
        vae = decoder(self.model).to(state.device)
        return Pipeline(model=self.model).family.decode(vae, state.to(vae.dtype))


class LatentImage(Image):
    """Pictures that are seen, written and measured through a pipeline's decoder."""

    example: ClassVar[dict[str, Any]] = {"model": "stable-diffusion"}
    model: str
    """Folder of the pipeline, or a hub id."""

    @torch.no_grad()
    def decode(self, samples: State) -> Any:
        assert isinstance(samples, Tensor)
        decode = Decode(model=self.model)
        return torch.cat([decode(part).float() for part in samples.split(4)])

    @torch.no_grad()
    def code(self, pictures: Tensor) -> Tensor:
        """Latents [N, C, h, w] of pictures [N, 3, H, W] in [−1, 1]: what a dataset of latents holds."""
        vae = decoder(self.model).to(pictures.device)
        code = Pipeline(model=self.model).family.code
        return torch.cat([code(vae, part.to(vae.dtype)).float() for part in pictures.split(4)])

    def write(self, samples: State, folder: Path, stem: str = "sample") -> list[Path]:
        return super().write(self.decode(samples), folder, stem)

    def preview(self, samples: State, path: Path, titles: Sequence[str] = ()) -> Path:
        return super().preview(self.decode(samples), path, titles)
