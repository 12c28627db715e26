"""`edgezo serve` and `edgezo tune --serve`, as processes of their own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from edgezo.serve import server
from edgezo_runtime.errors import EdgezoError, UsageError
from tests.bundles.tiny import tuned_bundle
from tests.conftest import copied
from tests.edgezo.conftest import Invoke, Tiny, start, tune_args
from tests.runtime.chat_bundle import chat_bundle


def listening(process: subprocess.Popen[str]) -> str:
    """Wait until a server tells its address; what follows on stderr is read and dropped."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if found := re.search(r"listening at (http://\S+)/v1", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[1]
    pytest.fail(seen)


def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, timeout=60)


@pytest.fixture
def ended() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that must not outlive a test."""
    found: list[subprocess.Popen[str]] = []
    yield found
    for process in found:
        if process.poll() is None:
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_a_server_answers_until_it_is_stopped(
    tmp_path: Path, ended: list[subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEZO_API_KEY", "k")
    bundle = chat_bundle(tmp_path / "bundle")
    process = start("serve", bundle.root, "--port", 0, "--name", "me", "--threads", 1, "--context",
                    100, cwd=tmp_path)  # fmt: skip
    ended.append(process)
    url = listening(process)
    found = client(url).chat.completions.create(
        model="me", messages=[{"role": "user", "content": "great film"}], max_tokens=5
    )
    assert found.usage is not None
    assert found.usage.completion_tokens <= 5
    taken = subprocess.run(
        [*process.args[:3], "serve", bundle.root, "--port", url.rpartition(":")[2]],  # type: ignore[index]
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert taken.returncode == 1
    assert "choose another address or port" in taken.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_a_run_is_served_while_it_goes_on(
    invoke: Invoke, tiny: Tiny, tmp_path: Path, ended: list[subprocess.Popen[str]]
) -> None:
    process = start(
        *tune_args(tiny, "--serve", "127.0.0.1:0", "--serve-context", 40, "--steps", 100_000),
        cwd=tmp_path,
    )
    ended.append(process)
    ask = client(listening(process))
    assert ask.models.list().data[0].id == "run"
    said = set()
    for _ in range(12):
        found = ask.completions.create(model="run", prompt="w20 w30", max_tokens=8, temperature=0)
        said.add(found.choices[0].text)
    base = {
        ask.completions.create(model=model.id, prompt="w20 w30", max_tokens=8, temperature=0)
        .choices[0]
        .text
        for model in ask.models.list().data[1:]
        for _ in range(2)
    }
    assert len(said) > 1  # the adapter moves between answers
    assert len(base) == 1  # the base model does not
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    receipt = json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert receipt["steps"] >= 12  # a step between two answers, at least
    assert receipt["peak_bytes"] <= receipt["budget_bytes"]
    more = json.loads(invoke("plan", tiny.int8, "--budget", "8GB", "--data", tiny.data, "--json"
                             ).stdout)  # fmt: skip
    assert receipt["plan"]["ledger"]["texts"] > more["ledger"]["texts"] == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--host", "0.0.0.0"), 2, "other machines could ask without a key"),
        (("--port", "70000"), 2, "--port"),
        (("--temperature", "3"), 2, "--temperature"),
        (("--body-limit", "many"), 2, "many"),
        (("--body-limit", "17MB"), 2, "--body-limit 17MB"),
        (("--queue", "2000"), 2, "--queue 2000"),
        (("--api-key", ""), 2, "--api-key: the key is empty"),
        (("--host", "256.1.1.1", "--api-key", "k"), 1, "cannot listen"),
        (("--adapter", "a b=run", "--port", "0"), 2, "NAME=RUN"),
    ],
)
def test_wrong_settings_are_refused(
    invoke: Invoke, tiny: Tiny, args: tuple[str, ...], code: int, message: str
) -> None:
    assert message in invoke("serve", tiny.int8, *args, code=code).stderr


def test_the_extra_is_named_where_it_is_missing(
    invoke: Invoke, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    told = invoke("serve", tiny.int8, "--port", 0, code=1).stderr
    assert "pip install 'edgezo[serve]'" in told
    told = invoke(*tune_args(tiny, "--serve", "127.0.0.1:0"), code=1).stderr
    assert "pip install 'edgezo[serve]'" in told


def test_a_served_run_begins_only_where_it_can_be_served(
    invoke: Invoke, tiny: Tiny, tmp_path: Path
) -> None:
    """A bundle that writes no texts, or an address that is taken, leaves no run behind."""
    mute = copied(tmp_path / "mute", tuned_bundle, "int8")
    manifest = json.loads((mute / "manifest.json").read_text())
    manifest["graphs"]["logits"] = None
    (mute / "manifest.json").write_text(json.dumps(manifest))
    args = ("tune", "--budget", "8GB", "--data", tiny.data, "--steps", 1, "-o", "other")
    told = invoke(*args[:1], mute, *args[1:], "--no-verify", "--serve", ":0", code=2).stderr
    assert "--serve" in told
    assert "cannot generate" in told
    with server.bind("127.0.0.1", 0) as own:
        at = ("--serve", f"127.0.0.1:{own.getsockname()[1]}")
        told = invoke(*args[:1], tiny.int8, *args[1:], *at, code=1).stderr
        assert "choose another address or port" in told
        assert not list((tmp_path / "other").glob("*.json"))
        invoke(*args[:1], tiny.int8, *args[1:], *at, "--dry-run")  # listens nowhere


def test_requests_that_wait_are_planned_for(invoke: Invoke, tiny: Tiny) -> None:
    args = ("--port", 0, "--budget", "300MB", "--context", 40, "--queue", 20)
    told = invoke("serve", tiny.int8, *args, "--body-limit", "16MB", code=3).stderr
    assert "336 MB more for requests that wait" in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("127.0.0.1", 8000)),
        ("9000", ("127.0.0.1", 9000)),
        (":9000", ("127.0.0.1", 9000)),
        ("localhost", ("localhost", 8000)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:80", ("::1", 80)),
        ("::1", ("::1", 8000)),
    ],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert server.parse_address(text, 8000) == expected


def test_wrong_addresses_are_refused() -> None:
    for text in ("a:b", "a:99999", "[::1]:x"):
        with pytest.raises(UsageError, match="port"):
            server.parse_address(text, 8000)
    with server.bind("127.0.0.1", 0) as own, pytest.raises(EdgezoError, match="choose another"):
        server.bind("127.0.0.1", own.getsockname()[1])
