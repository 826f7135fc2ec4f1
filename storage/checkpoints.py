"""Checkpoints: safetensors and JSON, self-describing, verified on load, never unpickled.

`<prefix>/config.json` is written last and lists the other files with their digests; a checkpoint without it
does not exist. The other files are named after their content, so saving over an old checkpoint is safe, too.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motionsynth.errors import InputError
from storage.header import canonical_json
from storage.limits import MAX_JSON_BYTES, MAX_OBJECT_BYTES, parse_json
from storage.objects import MissingError, sha256
from storage.paths import Storage
from storage.revision import git_revision
from storage.tensor_tree import flatten, unflatten

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"
CHECKPOINT_VERSION = 1
_RESERVED = ("checkpoint_version", "files", "digest")
_NO_IDENTITY = ("git_revision", "metrics")
_STEP = re.compile(r"step-(\d+)")
_NAME = re.compile(r"(model|state)-[0-9a-f]{16}\.(safetensors|json)")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """A checkpoint in storage: its step, its prefix for `load_checkpoint`, and its digest."""

    step: int
    prefix: str
    digest: str


def step_prefix(prefix: str, step: int) -> str:
    """Where the checkpoint of a training step lies below a run's prefix."""
    return f"{prefix}/step-{step:09d}" if prefix else f"step-{step:09d}"


def save_checkpoint(
    storage: Storage,
    prefix: str,
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    state: Any = None,
) -> str:
    """Write a checkpoint; it exists from the moment its `config.json` does.

    Args:
        storage: Where.
        prefix: Folder of this checkpoint (see `step_prefix`).
        tensors: The model, by name; any device, views and shared memory allowed.
        config: JSON: generator name, config, skeleton, class_names, normalisation, metrics, ... Non-finite
            numbers in `metrics` become null; `git_revision` is added unless given.
        state: Optimiser and RNG state to resume from (see `tensor_tree.flatten`), kept apart from the model.

    Returns:
        The digest (see `checkpoint_digest`).

    Raises:
        InputError: the config is no JSON or uses a reserved key, or the state holds what cannot be saved.
    """
    if clash := [k for k in _RESERVED if k in config]:
        raise InputError(f"A checkpoint config must not have the keys {clash}; storage adds them itself.")
    at = storage.sub(prefix)
    body = {"git_revision": git_revision(), **config}
    if "metrics" in body:
        body["metrics"] = _finite(body["metrics"])
    files = [_write(at, "model", "safetensors", _to_bytes(tensors))]
    # Computed before anything else is written, so that a config that is no JSON leaves only one orphan.
    digest = _digest(body, files[0]["sha256"])
    if state is not None:
        state_tensors, tree = flatten(state)
        files.append(_write(at, "state", "safetensors", _to_bytes(state_tensors)))
        files.append(_write(at, "state", "json", json.dumps(tree, allow_nan=False).encode()))
    whole = {**body, "checkpoint_version": CHECKPOINT_VERSION, "digest": digest, "files": files}
    at.write(CONFIG, canonical_json(whole).encode())
    keep = {CONFIG, *(f["name"] for f in files)}
    for o in at.list():
        # What an earlier save under this prefix left behind, now that no config names it.
        if o.key not in keep and _NAME.fullmatch(o.key):
            at.delete(o.key)
    return digest


def load_checkpoint(storage: Storage, prefix: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The model's tensors (CPU) and the config, as they were saved.

    Raises:
        InputError: there is no complete checkpoint, or a file is missing or damaged; says which and the cure.
    """
    at = storage.sub(prefix)
    whole = _read_config(at)
    tensors = _from_bytes(at, _file(at, whole, "model", "safetensors"))
    return tensors, {k: v for k, v in whole.items() if k not in _RESERVED}


def load_state(storage: Storage, prefix: str) -> Any:
    """The optimiser and RNG state, None if the checkpoint was saved without.

    Raises:
        InputError: as `load_checkpoint`.
    """
    at = storage.sub(prefix)
    whole = _read_config(at)
    if not any(f["role"] == "state" for f in whole["files"]):
        return None
    tensors = _from_bytes(at, _file(at, whole, "state", "safetensors"))
    try:
        return unflatten(tensors, parse_json(_checked(at, _file(at, whole, "state", "json"))))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(
            f"The training state of checkpoint '{at.uri}' is none that motionsynth wrote; use an earlier checkpoint or "
            "train again."
        ) from None


def read_config(storage: Storage, prefix: str) -> dict[str, Any]:
    """The config alone, without the weights.

    Raises:
        InputError: there is no complete checkpoint.
    """
    return {k: v for k, v in _read_config(storage.sub(prefix)).items() if k not in _RESERVED}


def checkpoint_files(storage: Storage, prefix: str) -> dict[str, bytes]:
    """The files of a checkpoint without the state of its training: what others need, with the same digest.

    Raises:
        InputError: as `load_checkpoint`.
    """
    at = storage.sub(prefix)
    whole = _read_config(at)
    model = _file(at, whole, "model", "safetensors")
    return {model["name"]: _checked(at, model), CONFIG: canonical_json({**whole, "files": [model]}).encode()}


def checkpoint_digest(storage: Storage, prefix: str) -> str:
    """SHA-256 over the model file's digest and the config, `git_revision` and `metrics` apart.

    What samples depend on: two checkpoints with this digest generate the same clips.

    Raises:
        InputError: there is no complete checkpoint.
    """
    return _read_config(storage.sub(prefix))["digest"]


def list_checkpoints(storage: Storage, prefix: str) -> list[CheckpointInfo]:
    """Complete checkpoints `<prefix>/step-*`, lowest step first; warns of incomplete ones and skips them.

    Sizes are compared here, contents only on load and by `latest_checkpoint`.
    """
    start = f"{prefix}/" if prefix else ""
    sizes: dict[str, dict[str, int]] = {}
    for o in storage.list(prefix):
        folder, _, name = o.key[len(start) :].partition("/")
        if _STEP.fullmatch(folder) and name:
            sizes.setdefault(folder, {})[name] = o.size
    found = []
    for folder, names in sizes.items():
        where = start + folder
        if CONFIG not in names:
            log.warning(
                "Checkpoint '%s/%s' is incomplete (no %s) and is skipped.", storage.uri, where, CONFIG
            )
            continue
        try:
            whole = _read_config(storage.sub(where))
        except InputError as e:
            log.warning("%s It is skipped.", e)
            continue
        if wrong := [f["name"] for f in whole["files"] if names.get(f["name"]) != f["bytes"]]:
            log.warning(
                "Checkpoint '%s/%s' is skipped: %s is missing or truncated.",
                storage.uri,
                where,
                ", ".join(wrong),
            )
            continue
        step = int(folder.removeprefix("step-"))
        found.append(CheckpointInfo(step=step, prefix=where, digest=whole["digest"]))
    return sorted(found, key=lambda c: c.step)


def latest_checkpoint(storage: Storage, prefix: str) -> CheckpointInfo | None:
    """The highest step whose files all have their recorded content; warns of corrupt ones and skips them."""
    for info in reversed(list_checkpoints(storage, prefix)):
        at = storage.sub(info.prefix)
        try:
            for f in _read_config(at)["files"]:
                _checked(at, f)
            return info
        except InputError as e:
            log.warning("%s It is skipped.", e)
    return None


def _write(at: Storage, role: str, kind: str, data: bytes) -> dict[str, Any]:
    digest = sha256(data)
    name = f"{role}-{digest[:16]}.{kind}"
    at.write(name, data)
    return {"role": role, "name": name, "bytes": len(data), "sha256": digest}


def _digest(body: Mapping[str, Any], model: str) -> str:
    identity = {k: v for k, v in body.items() if k not in _NO_IDENTITY}
    return sha256(canonical_json({"model": model, "config": identity}).encode())


def _read_config(at: Storage) -> dict[str, Any]:
    try:
        data = at.read(CONFIG, MAX_JSON_BYTES)
    except MissingError:
        raise MissingError(
            f"There is no complete checkpoint at '{at.uri}' (no {CONFIG}); check the run name, or let "
            "`python -m rayjobs.train` finish."
        ) from None
    try:
        whole = parse_json(data)
        version = whole["checkpoint_version"]
        model = next(f["sha256"] for f in whole["files"] if f["role"] == "model")
        body = {k: v for k, v in whole.items() if k not in _RESERVED}
        damaged = version <= CHECKPOINT_VERSION and (
            _digest(body, model) != whole["digest"]
            or not all(_NAME.fullmatch(f["name"]) for f in whole["files"])
        )
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        version, damaged, whole = 0, True, {}
    if version > CHECKPOINT_VERSION:
        raise InputError(
            f"Checkpoint '{at.uri}' has version {version} but this motionsynth reads up to "
            f"{CHECKPOINT_VERSION}; upgrade motionsynth to load it."
        )
    if damaged:
        raise InputError(
            f"'{at.uri}/{CONFIG}' is damaged or not ours; use an earlier checkpoint or train again."
        )
    return whole


def _file(at: Storage, whole: Mapping[str, Any], role: str, kind: str) -> Mapping[str, Any]:
    for f in whole["files"]:
        if f["role"] == role and f["name"].endswith(kind):
            return f
    raise InputError(f"'{at.uri}/{CONFIG}' lists no {role}.{kind}; use another checkpoint or train again.")


def _checked(at: Storage, file: Mapping[str, Any]) -> bytes:
    cure = "use an earlier checkpoint or train again"
    try:
        data = at.read(file["name"], MAX_JSON_BYTES if file["name"].endswith(".json") else MAX_OBJECT_BYTES)
    except MissingError:
        raise InputError(f"Checkpoint file '{at.uri}/{file['name']}' is missing; {cure}.") from None
    if len(data) != file["bytes"] or sha256(data) != file["sha256"]:
        raise InputError(
            f"Checkpoint file '{at.uri}/{file['name']}' is damaged ({len(data)} of {file['bytes']} bytes, "
            f"digest not as recorded); {cure}."
        )
    return data


def _to_bytes(tensors: Mapping[str, torch.Tensor]) -> bytes:
    import torch
    from safetensors.torch import save

    seen: set[int] = set()
    plain: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"Checkpoint entry '{name}' is a {type(value).__name__}; it must be a tensor.")
        t = value.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory (tied weights, views of one buffer).
        if t.untyped_storage().data_ptr() in seen or t.untyped_storage().nbytes() != t.nbytes:
            t = t.clone()
        seen.add(t.untyped_storage().data_ptr())
        plain[name] = t
    return save(plain)


def _from_bytes(at: Storage, file: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(_checked(at, file))
    except SafetensorError as e:
        raise InputError(f"Checkpoint file '{at.uri}/{file['name']}' is no safetensors file ({e}).") from None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
