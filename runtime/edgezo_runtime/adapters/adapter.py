"""Adapters: the tuned tensors in one safetensors file that knows where they belong.

Tensors have the bundle's names, "<module>.<role>"; `TrainableInfo` lists the roles. The file has
all tensors of a module, frozen ones included, or none. `AdapterInfo` is what it says of itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter_info import INFO_KEY, VERSION, AdapterInfo, parse_info
from edgezo_runtime.adapters.saved_settings import with_settings_of_run
from edgezo_runtime.bundle.bundle import MANIFEST_FILE, Bundle
from edgezo_runtime.bundle.trainables import (
    ROLES,
    SchemeInfo,
    SchemeKind,
    TrainableInfo,
    dimensions,
    trainable_problem,
)
from edgezo_runtime.config import AnswerSettings
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.errors import DivergedError, RunFileError
from edgezo_runtime.journal.run_folder import find_adapter
from edgezo_runtime.system.files import atomic_path, sha256_file
from edgezo_runtime.system.safetensors_reader import (
    TensorHeader,
    TensorHeaderError,
    read_tensor_header,
    read_tensors,
)
from edgezo_runtime.system.safetensors_writer import write_tensors
from edgezo_runtime.system.typed_json import encode

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """An adapter in memory.

    Attributes:
        info: where it belongs.
        tensors: float32 by name.
        path: the file it was read from.
    """

    info: AdapterInfo
    tensors: dict[str, Float32]
    path: Path

    @property
    def modules(self) -> list[str]:
        """Paths of the adapted modules."""
        return sorted({split_name(name)[0] for name in self.tensors})

    def params(self, bundle: Bundle) -> dict[str, Float32]:
        """Every trainable input of a bundle: the adapter's, else the bundle's initial value.

        The bundle need not be the one the adapter was tuned on: another quantization of the same
        model takes it too.

        Raises:
            RunFileError: the bundle is of another architecture or scheme, or lacks a module, or a
                shape differs.
        """
        model, scheme = bundle.manifest.model, bundle.manifest.scheme
        if self.info.architecture != model.architecture:
            raise RunFileError(
                f"{self.path}: adapter of a {self.info.architecture} model, bundle {bundle.root} "
                f"has a {model.architecture} model; use a bundle of {self.info.model}"
            )
        own = self.info.scheme
        if (own.kind, own.tokens) != (scheme.kind, scheme.tokens) or not np.isclose(
            own.scale, scheme.scale
        ):
            raise RunFileError(
                f"{self.path}: {scheme_settings(own)}, bundle {bundle.root} has "
                f"{scheme_settings(scheme)}; {self._export_hint()}"
            )
        result = bundle.trainables()
        for name, value in self.tensors.items():
            if name not in result:
                raise RunFileError(
                    f"{self.path}: bundle {bundle.root} has no trainable {name!r}; "
                    f"{self._export_hint()}"
                )
            if result[name].shape != value.shape:
                raise RunFileError(
                    f"{self.path}: {name!r} is {value.shape}, in bundle {bundle.root} "
                    f"{result[name].shape}; {self._export_hint()}"
                )
            result[name] = value
        return result

    def differences(self, bundle: Bundle) -> list[str]:
        """Describe how a bundle differs from the one that was tuned; empty if it does not."""
        own, other = self.info.model, bundle.manifest.model.id
        if own != other:
            return [f"the model was {own}, is {other}"]
        tuned, found = self.info.bundle_sha256, sha256_file(bundle.root / MANIFEST_FILE)
        if tuned == found:
            return []
        return [f"the bundle was another one of this model (manifest {tuned[:8]}, is {found[:8]})"]

    def tensors_sha256(self) -> str:
        """Digest of names, shapes and numbers: all that a run that begins here depends on."""
        digest = hashlib.sha256()
        for name, value in sorted(self.tensors.items()):
            digest.update(json.dumps([name, list(value.shape)]).encode())
            digest.update(value.astype("<f4").tobytes())
        return digest.hexdigest()

    def renamed(self, model: str) -> Adapter:
        """The same adapter for a base model of another name, such as a copy in a local folder."""
        return dataclasses.replace(self, info=dataclasses.replace(self.info, model=model))

    def save(self, path: Path) -> str:
        """Write the file, atomically.

        Returns:
            SHA-256 of the file; the same adapter gives the same bytes.
        Raises:
            RunFileError: it cannot be written.
        """
        text = json.dumps(encode(self.info), sort_keys=True)
        try:
            with atomic_path(path) as temporary:
                write_tensors(temporary, self.tensors, {INFO_KEY: text})
        except OSError as error:
            raise RunFileError(f"{path}: cannot be written: {error.strerror}") from error
        return sha256_file(path)

    def _export_hint(self) -> str:
        return f"use a bundle exported with {scheme_settings(self.info.scheme)}"


def scheme_settings(scheme: SchemeInfo) -> str:
    """The settings of an export that make this scheme, as far as an adapter depends on them."""
    return " ".join(f"`{name}` {value}" for name, value in _settings(scheme).items())


def _settings(scheme: SchemeInfo) -> dict[str, str]:
    settings = {
        "trainable": scheme.kind,
        "rank": scheme.rank,
        "alpha": None if scheme.alpha is None else f"{scheme.alpha:g}",
        "targets": ",".join(scheme.targets) if scheme.kind != "ia3" else "",
        "lora_train": scheme.train,
        "biases": scheme.biases,
        "bottleneck": scheme.bottleneck,
        "last_layers": scheme.layers,
        "virtual_tokens": len(scheme.tokens),
    }
    return {name: str(value) for name, value in settings.items() if value}


def split_name(name: str) -> tuple[str, str]:
    """Module and role of a tensor; cores of tensor trains have numbers."""
    module, _, last = name.rpartition(".")
    role, _, number = last.rpartition("_")
    return module, role if number.isascii() and number.isdigit() else last


def make_adapter(
    path: Path,
    bundle: Bundle,
    tensors: Mapping[str, Float32],
    *,
    steps: int,
    created_by: str,
    scope: Scope,
    invocation: tuple[int, ...] = (),
    reading: Reading | None = None,
    answers: AnswerSettings | None = None,
) -> Adapter:
    """Collect the content of an adapter file.

    Modules that did not change are left out, unless none changed.

    Args:
        path: of the file.
        bundle: what was tuned.
        tensors: all its trainables, as `Tuner.adapter` gives them.
        steps: training steps taken.
        created_by: the program, e.g. "edgezo 0.1.0".
        scope: tokens that it acts on.
        invocation: the token from which on it acts, if that is always the same one.
        reading: how the rows became tokens.
        answers: how answers were generated, if they were scored.
    Raises:
        DivergedError: a number is not finite.
    """
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise DivergedError(f"adapter {path}: {name!r} has numbers that are not finite")
    infos, initial = bundle.manifest.trainables, bundle.trainables()
    modules = {info.module for info in infos}
    changed = {i.module for i in infos if not np.array_equal(tensors[i.name], initial[i.name])}
    model, scheme = bundle.manifest.model, bundle.manifest.scheme
    chosen = modules if scheme.everywhere else changed or modules
    info = AdapterInfo(
        version=VERSION,
        created_by=created_by,
        model=model.id,
        architecture=model.architecture,
        task=model.task,
        bundle_sha256=sha256_file(bundle.root / MANIFEST_FILE),
        scheme=scheme,
        complete=chosen == modules,
        steps=steps,
        scope=scope,
        invocation=invocation,
        reading=reading,
        answers=answers,
    )
    kept = {
        name: np.ascontiguousarray(value, np.float32)
        for name, value in sorted(tensors.items())
        if split_name(name)[0] in chosen
    }
    return Adapter(info, kept, path)


def load_adapter(path: Path) -> Adapter:
    """Read an adapter.

    Args:
        path: a run folder or an adapter file.
    Raises:
        RunFileError: the file is missing, damaged, of another version, or no adapter of edgezo's.
    """
    file = find_adapter(path)
    try:
        header = read_tensor_header(file)
        text = header.metadata.get(INFO_KEY)
        if text is None:
            raise RunFileError(f"{file}: a safetensors file, but no adapter of edgezo's")
        info = parse_info(file, text)
        _check_tensors(file, info.scheme, header)
        tensors = read_tensors(file, header)
    except (TensorHeaderError, OSError) as error:
        raise RunFileError(f"{file}: not an adapter that can be read: {error}") from error
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise RunFileError(f"{file}: {name!r:.100} has numbers that are not finite")
    return Adapter(with_settings_of_run(info, file), tensors, file)


def _check_tensors(file: Path, scheme: SchemeInfo, header: TensorHeader) -> None:
    """Refuse tensors that do not belong to the scheme, before they are read.

    Raises:
        RunFileError: there is one; the message names it.
    """
    if header.unknown:
        raise RunFileError(f"{file}: {header.unknown[0]!r:.100} has an unknown type")
    if not header.tensors:
        raise RunFileError(f"{file}: no tensors in it")
    roles: dict[str, set[str]] = {}
    for name, stored in sorted(header.tensors.items()):
        module, role = split_name(name)
        known = next((own for own in ROLES[scheme.kind] if own == role), None)
        numbered = scheme.kind == "tt"
        if not module or known is None or not (numbered or name == f"{module}.{role}"):
            raise RunFileError(f"{file}: unexpected tensor {name!r:.100}")
        if not name.isprintable():
            raise RunFileError(f"{file}: {name!r:.100} is no name")
        if stored.dtype != np.float32 or len(stored.shape) != dimensions(known):
            raise RunFileError(
                f"{file}: {name!r:.100} is {stored.dtype} {stored.shape}, expected float32 with "
                f"{dimensions(known)} axes"
            )
        info = TrainableInfo(name, 0, module, known, stored.shape, trains=True)
        if problem := trainable_problem(info, scheme):
            raise RunFileError(f"{file}: {name!r:.100}: {problem}")
        roles.setdefault(module, set()).add(known)
    for module, found in roles.items():
        if problem := _module_problem(module, found, scheme.kind):
            raise RunFileError(f"{file}: {problem}")
    if scheme.kind == "prompt" and len(roles) > 1:
        raise RunFileError(f"{file}: prompts of {len(roles)} modules, expected one")
    shapes = {stored.shape for stored in header.tensors.values()}
    if scheme.kind == "prefix" and len(shapes) > 1:
        raise RunFileError(f"{file}: prefixes of different shapes: {sorted(shapes)[:2]}")


def _module_problem(module: str, roles: set[str], kind: SchemeKind) -> str | None:
    """Describe the first problem of a module's tensors, or return None."""
    whole: tuple[str, ...] = ROLES[kind] if kind in ("lora", "lora-xs", "prefix") else ()
    whole = ("prompt",) if kind == "prompt" else whole
    for role in whole:
        if role not in roles:
            return f"'{module}.{min(roles)}' without '{module}.{role}'"
    number = module.rpartition(".")[2]
    if kind == "prefix" and not (number.isascii() and number.isdigit() and len(number) < 10):
        return f"{module!r:.100} is no block"
    if kind == "ia3" and len(roles) > 1:
        return f"{module!r:.100} has factors of its input and of its output"
    return None
