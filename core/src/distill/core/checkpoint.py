"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all. No pickle is written or
read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from distill.core import scale
from distill.core.errors import CheckpointError, DistillError

MANIFEST = "manifest.json"
PART, OLD, SHARES = ".part", ".old", "shares"
Tensors = Mapping[str, Tensor]


def write(folder: Path, files: Mapping[str, Tensors], state: Mapping[str, Any], shares: Path | None = None) -> Path:
    """Write `files` (name → tensors) and a JSON `state` to `folder`: aside, fsynced, then renamed into place.

    Args:
        shares: a folder that processes have written their shares to, which becomes a part of it.

    Raises:
        CheckpointError: nothing was written (disk full, no permission); what was there before is untouched.
    """
    aside = aside_of(folder)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        contents = ((f"{name}.safetensors", _encode(tensors)) for name, tensors in files.items())
        digests = {name: _put(aside / name, content) for name, content in contents}
        if shares is not None:
            shares.rename(aside / SHARES)
            _sync_folder(aside / SHARES)
            digests |= {f"{SHARES}/{path.name}": _digest(path) for path in (aside / SHARES).iterdir()}
        digests["state.json"] = _put(aside / "state.json", json.dumps(state).encode())
        _put(aside / MANIFEST, json.dumps(digests, indent=1).encode())
        _sync_folder(aside)
        old = _hide(folder) if folder.exists() else None
        os.rename(aside, folder)
        _sync_folder(folder.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {folder} was not written ({error.strerror or error}); earlier checkpoints are "
            "untouched. Free some space or choose another folder, then resume with --resume."
        ) from error
    return folder


def aside_of(folder: Path, suffix: str = "") -> Path:
    """Where something is written until the checkpoint is whole."""
    return folder.with_name(f".{folder.name}{suffix}{PART}")


def _hide(folder: Path) -> Path:
    """Rename a checkpoint out of sight, so that it never is seen half deleted."""
    hidden = folder.with_name(f".{folder.name}{OLD}")
    shutil.rmtree(hidden, ignore_errors=True)
    return folder.rename(hidden)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the last `keep` checkpoints of a folder, and what a killed process left half written or
    deleted."""
    for step in steps(folder)[:-keep]:
        _hide(folder / f"step-{step}")
    for rest in (*folder.glob(f".step-*{PART}"), *folder.glob(f".step-*{OLD}")):
        shutil.rmtree(rest, ignore_errors=True)


def _encode(tensors: Tensors) -> bytes:
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def _put(path: Path, content: bytes) -> str:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(folder: Path, *, gather: bool = True) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The files and the state of a checkpoint, after comparing every file with its digest.

    Args:
        gather: put the shares of several processes together; else what was shared is left out.

    Raises:
        CheckpointError: a file is missing, cut short or changed; the message names it and what to do.
    """
    digests = _load_json(folder / MANIFEST)
    if not isinstance(digests, dict) or "state.json" not in digests:
        raise damaged(folder / MANIFEST, "it lists no state.json")
    for name, digest in digests.items():
        if _digest(folder / str(name)) != digest:
            size = (folder / name).stat().st_size
            raise damaged(folder / name, f"{size} bytes, whose digest is not the one in {MANIFEST}")
    names = [name for name in digests if name.endswith(".safetensors") and "/" not in name]
    files = {name.removesuffix(".safetensors"): read_tensors(folder / name) for name in names}
    if gather and (folder / SHARES).is_dir():
        files |= scale.load(folder / SHARES, lambda key, whole: whole)
    return files, _load_json(folder / "state.json")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise damaged(path, str(error)) from error


def fill(network: nn.Module, path: Path, inside: str) -> None:
    """Put a file's weights into a network: its own, or those of a denoiser that holds it under the name `inside`.

    Raises:
        DistillError: the file cannot be read, or its weights have other names or shapes.
    """
    try:
        tensors = {name.removeprefix(inside): tensor for name, tensor in grown(load_file(path)).items()}
    except (OSError, SafetensorError) as error:
        raise DistillError(f"the weights {path} cannot be read: {error}. Give a safetensors file.") from error
    mine = network.state_dict()
    if odd := mine.keys() ^ tensors.keys() or {name for name in mine if mine[name].shape != tensors[name].shape}:
        raise DistillError(f"the weights {path} do not fit the network's config: {', '.join(sorted(odd)[:3])} differ")
    network.load_state_dict(tensors)


SCALE = "@scale"


def shrunk(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a small file: matrices and kernels in 8 bits, beside the scales of their rows; the rest in 16."""
    small = {}
    for name, value in tensors.items():
        small[name] = value.half() if value.is_floating_point() else value
        if value.is_floating_point() and value.ndim > 1 and value.numel() > 32 * len(value):
            whole, factor = scale.eight_bit(value.float())
            small |= {name: whole, name + SCALE: factor}
    return small


def grown(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `shrunk` has put together, as weights again; others stay as they are."""
    weights = {name: value for name, value in tensors.items() if not name.endswith(SCALE)}
    return {n: w * tensors[n + SCALE] if n + SCALE in tensors else w for n, w in weights.items()}


def damaged(path: Path, why: str) -> CheckpointError:
    """The error for a file that is not what was written."""
    return CheckpointError(
        f"{path} is missing or damaged ({why}). Use an earlier checkpoint: `--resume-from step-N`, or delete "
        f"the folder {path.parent} and resume from the one before."
    )


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error


def _load_json(path: Path) -> Any:
    try:
        return json.loads(_content(path))
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"not JSON: {error}") from error


def steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints in a run's `checkpoints` folder, ascending."""
    names = [path.name for path in folder.glob("step-*") if (path / MANIFEST).exists()]
    return sorted(int(name.removeprefix("step-")) for name in names if name.removeprefix("step-").isdigit())


def flatten_optimiser(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's `state_dict` as tensors and plain parameter groups."""
    tensors = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, entries in state["state"].items()
        for key, value in entries.items()
    }
    return tensors, state["param_groups"]


def unflatten_optimiser(tensors: Tensors, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The `state_dict` that `flatten_optimiser` took apart."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": groups}
