"""One export of an adapter: its files, its bundle and its base model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgezo.cli.settings.options import setting
from edgezo_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgezo_runtime.adapters.adapter import Adapter
    from edgezo_runtime.adapters.usage import Usage
    from edgezo_runtime.bundle.bundle import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterExportSettings:
    """Settings of `edgezo adapter export`."""

    format: str = setting(
        "peft",
        "format of the result: peft, a folder for PEFT; mlx, a folder for mlx-lm; gguf, a file for "
        "llama.cpp; onnx, an .onnx_adapter for onnxruntime; safetensors, a file with edgezo's "
        "names; merged, the base model with the adapter merged into its weights",
    )
    base_model: str = setting(
        "", "id or path of the base model, in place of the one in the bundle", metavar="MODEL"
    )
    weights: str | None = setting(
        None,
        "base model, for merged and `verify`: a Hugging Face folder, or a .gguf file for gguf; by "
        "default the base model's path, or the cache of the Hugging Face hub",
        metavar="PATH",
    )
    bundle: str | None = setting(
        None,
        "bundle that was tuned, for gguf and `verify`; a run folder knows its own",
        metavar="BUNDLE",
    )
    dtype: Literal["keep", "fp32", "fp16", "bf16"] = setting(
        "keep", "data type of the weights of merged; keep takes the one of the base model"
    )
    verify: bool = setting(
        False, "load the result in the program it is made for, and compare scores with edgezo's"
    )
    force: bool = setting(False, "replace an existing output")


@dataclass(frozen=True)
class ExportJob:
    """An export, with all it needs.

    Attributes:
        adapter: the adapter.
        source: the run folder or the file that it was read from.
        output: file or folder of the result.
        settings: the options.
    """

    adapter: Adapter
    source: Path
    output: Path
    settings: AdapterExportSettings

    def bundle(self) -> Bundle:
        """The bundle that was tuned.

        Raises:
            UsageError: neither the settings nor the run name it, or it is not there.
            BundleError: the bundle cannot be opened.
            RunFileError: the adapter belongs to another bundle.
        """
        from edgezo_runtime.bundle.bundle import Bundle

        path = self._bundle_path()
        if path is None:
            raise UsageError(
                f"{self.source}: an adapter file does not name its bundle; name it with --bundle"
            )
        if self.settings.bundle is None and not Path(path).exists():
            raise UsageError(
                f"{self.source}: was tuned on bundle {path}, which is not there; name its new "
                f"place with --bundle"
            )
        bundle = Bundle.open(path)
        self.adapter.params(bundle)
        return bundle

    @cached_property
    def usage(self) -> Usage:
        """The tokens that the adapter acts on, and its prompts.

        Raises:
            RunFileError: the run's settings cannot be read.
        """
        from edgezo_runtime.adapters.usage import Usage

        return Usage(self.adapter.info, self._invocation_text())

    def _invocation_text(self) -> str:
        """Text of the token from which on the adapter acts; "" without that or its bundle."""
        from edgezo_runtime.bundle.bundle import Bundle
        from edgezo_runtime.data.sources import open_tokenizer
        from edgezo_runtime.errors import EdgezoError

        invocation = self.adapter.info.invocation
        if not invocation or (path := self._bundle_path()) is None:
            return ""
        try:
            tokenizer = open_tokenizer(Bundle.open(path))
        except EdgezoError:  # the bundle may be gone: the export does not need it
            return ""
        return tokenizer.decode(invocation, skip_special=False)

    def _bundle_path(self) -> str | None:
        path = self.settings.bundle or self.run_config().get("bundle")
        return path if isinstance(path, str) else None

    def run_config(self) -> dict[str, Any]:
        """Settings of the run, its bundle and data among them; empty for an adapter file.

        Raises:
            RunFileError: the run's settings cannot be read.
        """
        from edgezo_runtime.journal.run_folder import RunFolder

        return RunFolder(self.source).settings() if self.source.is_dir() else {}

    def read_files(self) -> list[Path]:
        """Files that the output must not replace.

        Raises:
            RunFileError: the run's settings cannot be read.
        """
        from edgezo.cli.files.read_files import bundle_folder, model_files, run_files
        from edgezo_runtime.journal.run_folder import RunFolder

        run = RunFolder(self.adapter.path.parent)
        found = [self.adapter.path]
        if run.has_journal():
            found += [*run_files(run), run.snapshot, run.adapter]
        bundle = self._bundle_path()
        if bundle is not None:
            found += bundle_folder(Path(bundle))
        base = Path(self.settings.weights or self.adapter.info.model)
        return found + (model_files(base) if base.exists() else [])

    def weights(self) -> Path:
        """Folder or .gguf file of the base model.

        Raises:
            UsageError: it is not there, or not given.
        """
        model = self.adapter.info.model
        path = Path(self.settings.weights or model)
        if path.exists():
            return path
        if self.settings.weights is None and (cached := _in_cache(model)) is not None:
            return cached
        raise UsageError(
            f"{path}: no such folder or file; name the weights of {model} with --weights"
        )


def _in_cache(model: str) -> Path | None:
    """The folder of a model of the Hugging Face hub that was downloaded before."""
    from importlib.util import find_spec

    from edgezo_runtime.errors import EdgezoError

    if find_spec("huggingface_hub") is None:
        return None
    from edgezo_export.sources.hub import fetch

    try:
        return fetch(model, local_only=True)
    except EdgezoError:
        return None
