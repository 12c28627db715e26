"""Reads a LoRA in the format of PEFT, as the initial adapter of a bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgezo_runtime.adapters.adapter import Adapter, make_adapter
from edgezo_runtime.adapters.lora_factors import LoraFactors, as_trainables
from edgezo_runtime.adapters.peft_writer import CONFIG_FILE, WEIGHTS_FILE
from edgezo_runtime.adapters.usage import READING_KEY, read_metadata
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.bundle.trainables import MAX_AXIS
from edgezo_runtime.data.reading import Reading
from edgezo_runtime.data.scope import Scope
from edgezo_runtime.errors import RunFileError, UsageError
from edgezo_runtime.system.files import read_regular
from edgezo_runtime.system.lfs_pointer import pointer_problem
from edgezo_runtime.system.safetensors_reader import (
    TensorHeaderError,
    read_floats,
    read_tensor_header,
)
from edgezo_runtime.system.typed_json import JsonShapeError, decode, parse_object

Float32 = npt.NDArray[np.float32]

_LARGEST_CONFIG = 1 << 20
_LARGEST_ALPHA = 1e9
_PREFIX = "base_model.model."
_FACTORS = {".lora_A.weight": "a", ".lora_B.weight": "b"}

_ABSENT: dict[str, tuple[object, ...]] = {
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None, {}),
    "alora_invocation_tokens_string": (None,),
    "arrow_config": (None,),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "alpha_pattern": (None, {}),
    "kasa_config": (None,),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
}
"""Keys and the values that they have in a plain LoRA: two factors per layer, scaled as usual."""

_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Values of init_lora_weights that leave the base model unchanged."""


@dataclass(frozen=True, slots=True)
class PeftLora:
    """A LoRA of PEFT.

    Attributes:
        folder: the folder that it was read from.
        base_model: the model that it names as its base; "" if it names none.
        rank: the largest rank of a layer.
        factors: by layer.
        invocation: tokens from which on it acts; None for all tokens.
        reading: how the rows were read that it was tuned on, if edgezo exported it.
    """

    folder: Path
    base_model: str
    rank: int
    factors: tuple[LoraFactors, ...]
    invocation: tuple[int, ...] | None
    reading: Reading | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        """Last components of the layers' paths."""
        return tuple(sorted({one.module.rpartition(".")[2] for one in self.factors}))


@dataclass(frozen=True, slots=True)
class _Config:
    """The part of adapter_config.json that matters here."""

    r: int
    lora_alpha: float
    use_rslora: bool
    base_model: str
    invocation: tuple[int, ...] | None

    def scale(self, rank: int) -> float:
        """The scale of a product of this rank."""
        return self.lora_alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_peft(folder: Path) -> PeftLora:
    """Read adapter_config.json and adapter_model.safetensors.

    Ranks are those of the tensors. No file that can hold code is opened.

    Raises:
        RunFileError: a file is missing, damaged, or contradicts itself.
        UsageError: the adapter is more than LoRA: of another type, DoRA, with biases, ...
        DoesNotFitError: it needs more memory than there is.
    """
    config = _read_config(folder / CONFIG_FILE)
    path = folder / WEIGHTS_FILE
    if not path.is_file() and (folder / "adapter_model.bin").exists():
        raise UsageError(
            f"{folder}: adapter_model.bin can hold code and is not opened; save the adapter as "
            f"safetensors"
        )
    try:
        header = read_tensor_header(path)
        places = {name: _place(path, name) for name in (*header.tensors, *header.halves)}
        tensors = read_floats(path, header)
        text = header.metadata.get(READING_KEY)
        reading = None if text is None else read_metadata(text)
    except (TensorHeaderError, JsonShapeError, OSError) as error:
        raise RunFileError(f"{path}: cannot be read: {error}") from error
    pairs: dict[str, dict[str, Float32]] = {}
    for name, value in tensors.items():
        module, factor = places[name]
        if value.ndim != 2 or not value.size:
            raise RunFileError(f"{path}: {name!r:.200} is {value.shape}, expected a matrix")
        if not np.isfinite(value).all():
            raise RunFileError(f"{path}: {name!r:.200} has numbers that are not finite")
        pairs.setdefault(module, {})[factor] = value
    factors = tuple(_factors(path, module, pair, config) for module, pair in sorted(pairs.items()))
    if not factors:
        raise RunFileError(f"{path}: no tensors in it")
    rank = max(one.rank for one in factors)
    return PeftLora(folder, config.base_model, rank, factors, config.invocation, reading)


def start_from_peft(
    lora: PeftLora, bundle: Bundle, path: Path, *, created_by: str, base_model: str = ""
) -> Adapter:
    """Make the adapter of a bundle that computes what a LoRA of PEFT computes.

    Args:
        lora: what was read.
        bundle: exported with `trainable` lora, of at least the same rank, on at least its layers.
        path: of the adapter's file.
        created_by: the program.
        base_model: what the LoRA was tuned on, in place of what it says.
    Raises:
        UsageError: it was tuned on another model, or the bundle is of another kind.
        RunFileError: a layer, a rank or a shape does not fit.
    """
    manifest = bundle.manifest
    said, own = base_model or lora.base_model, manifest.model.id
    if said and said != own:
        raise UsageError(
            f"{lora.folder}: tuned on {said!r:.200}, bundle {bundle.root} was made from "
            f"{own!r:.200}; if they are the same model, set `base_model` to {own}"
        )
    if manifest.scheme.kind != "lora":
        raise UsageError(
            f"bundle {bundle.root} was exported with `trainable` {manifest.scheme.kind}; a LoRA "
            f"fits one exported with `trainable` lora `rank` {lora.rank} `targets` "
            f"{','.join(lora.targets)}"
        )
    scope, invocation = _scope(lora)
    return make_adapter(
        path,
        bundle,
        as_trainables(bundle, lora.factors),
        steps=0,
        created_by=created_by,
        scope=scope,
        invocation=invocation,
        reading=lora.reading,
    )


def _scope(lora: PeftLora) -> tuple[Scope, tuple[int, ...]]:
    if lora.invocation is None:
        return "all", ()
    if len(lora.invocation) != 1:
        raise UsageError(
            f"{lora.folder}: acts after {len(lora.invocation)} tokens in a row; one that acts from "
            f"a single token on can be taken"
        )
    return "answer", lora.invocation


def _read_config(path: Path) -> _Config:
    problem = pointer_problem(path)
    if problem is not None:
        raise RunFileError(f"{path}: {problem}")
    try:
        content = parse_object(read_regular(path, _LARGEST_CONFIG).decode("utf-8"))
        kind = content.get("peft_type")
        if kind != "LORA":
            raise UsageError(f"{path}: peft_type {_shown(kind)}; only LORA can be taken")
        _check_plain(path, content)
        config = _Config(
            r=decode(int, content.get("r"), "r"),
            lora_alpha=decode(float, content.get("lora_alpha"), "lora_alpha"),
            use_rslora=decode(bool, content.get("use_rslora", False), "use_rslora"),
            base_model=decode(
                str, content.get("base_model_name_or_path") or "", "base_model_name_or_path"
            ),
            invocation=_invocation(content.get("alora_invocation_tokens")),
        )
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, JsonShapeError) as error:
        raise RunFileError(f"{path}: {error}") from error
    if not 1 <= config.r <= MAX_AXIS:
        raise RunFileError(f"{path}: r {config.r} is no rank")
    if not 1 / _LARGEST_ALPHA <= config.lora_alpha <= _LARGEST_ALPHA:
        raise RunFileError(f"{path}: lora_alpha {config.lora_alpha:g} is out of proportion")
    if not config.base_model.isprintable():
        raise RunFileError(f"{path}: base_model_name_or_path has characters that do not print")
    return config


def _check_plain(path: Path, content: dict[str, Any]) -> None:
    """Refuse adapters that are more than two factors per layer.

    Raises:
        UsageError: one is; the message names the key.
    """
    for key, values in _ABSENT.items():
        if key in content and content[key] not in values:
            raise UsageError(
                f"{path}: {key} {_shown(content[key])} is more than the factors of LoRA; merge the "
                f"adapter with PEFT and export the model"
            )
    start = content.get("init_lora_weights", True)
    if isinstance(start, (list, dict)) or start not in _PLAIN_STARTS:
        raise UsageError(
            f"{path}: init_lora_weights {_shown(start)} changes the base model; let PEFT convert "
            f"the adapter to a plain LoRA (path_initial_model_for_weight_conversion)"
        )


def _invocation(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    tokens = decode(tuple[int, ...], value, "alora_invocation_tokens")
    if not all(0 <= token <= MAX_AXIS for token in tokens):
        raise JsonShapeError("alora_invocation_tokens: a number is no token")
    return tokens


def _place(path: Path, name: str) -> tuple[str, str]:
    """Module and factor of a tensor.

    Raises:
        UsageError: it is no factor of a linear layer.
    """
    for ending, factor in _FACTORS.items():
        module = name.removeprefix(_PREFIX).removesuffix(ending)
        plain = module and name == f"{_PREFIX}{module}{ending}" and name.isprintable()
        if plain:
            return module, factor
    raise UsageError(
        f"{path}: tensor {name!r:.200} is no factor of a linear layer; only those can be taken"
    )


def _factors(path: Path, module: str, pair: dict[str, Float32], config: _Config) -> LoraFactors:
    for factor, other in (("a", "B"), ("b", "A")):
        if factor not in pair:
            raise RunFileError(f"{path}: {module!r:.200} has lora_{other} alone")
    a, b = pair["a"], pair["b"]
    if len(a) != b.shape[1]:
        raise RunFileError(f"{path}: {module!r:.200}: factors {b.shape} and {a.shape} do not fit")
    return LoraFactors(module, a, b, config.scale(len(a)))


def _shown(value: object) -> str:
    return f"{value!r:.60}" if isinstance(value, (str, int, float, type(None))) else "of this form"
