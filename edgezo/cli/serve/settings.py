"""Settings of `edgezo serve`."""

from __future__ import annotations

from dataclasses import dataclass

from edgezo.cli.settings.device import DeviceSettings
from edgezo.cli.settings.options import setting
from edgezo.cli.settings.process import (
    budget_setting,
    context_setting,
    threads_setting,
    verify_setting,
)
from edgezo.serve import limits
from edgezo_runtime.errors import UsageError
from edgezo_runtime.system.sizes import format_size, parse_size

KEY_VARIABLE = "EDGEZO_API_KEY"
"""Environment variable that may hold the key of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings(DeviceSettings):
    """Settings of `edgezo serve`."""

    adapter: tuple[str, ...] = setting(
        (),
        "run folder or adapter file, and the name of the model that clients ask for; without a "
        "name it is that of the folder; may be given several times",
        metavar="[NAME=]RUN",
    )
    name: str | None = setting(
        None, "name of the model without an adapter; if not given, its own", metavar="NAME"
    )
    host: str = setting(
        "127.0.0.1", "address to listen at; one that other machines reach needs a key"
    )
    port: int = setting(limits.PORT, "port to listen at; 0 takes a free one", metavar="N")
    api_key: str | None = setting(
        None,
        f"key that clients must give; better in {KEY_VARIABLE}, where other users do not see it",
        metavar="KEY",
    )
    allow_host: tuple[str, ...] = setting(
        (),
        "further name of this machine that requests may give, such as that of a proxy; may be "
        "given several times",
        metavar="NAME",
    )
    allow_origin: tuple[str, ...] = setting(
        (),
        "page whose scripts may ask, such as http://localhost:3000, or * for all; by default none; "
        "may be given several times",
        metavar="ORIGIN",
    )
    queue: int = setting(
        limits.WAITING, "requests that wait while one is answered; more are refused (429)"
    )
    body_limit: str = setting(
        f"{limits.BODY_BYTES // 10**6}MB",
        f"largest request, up to {format_size(limits.MOST_BODY_BYTES)}; the budget counts one for "
        f"each that is answered or waits",
        metavar="SIZE",
    )
    max_new_tokens: int = setting(
        1024, "longest answer, in tokens; requests may ask for less", metavar="N"
    )
    context: int = context_setting("prompt and answer")
    temperature: float = setting(limits.TEMPERATURE, "temperature of requests that give none")
    stop: tuple[str, ...] = setting(
        (), "text that ends every answer; may be given several times", metavar="TEXT"
    )
    budget: str = budget_setting("auto")
    threads: int = threads_setting()
    verify: bool = verify_setting()

    @property
    def body_bytes(self) -> int:
        """Largest body.

        Raises:
            UsageError: it is no size, or out of range.
        """
        found = parse_size(self.body_limit)
        if not 0 < found <= limits.MOST_BODY_BYTES:
            most = format_size(limits.MOST_BODY_BYTES)
            raise UsageError(f"--body-limit {self.body_limit}: must be up to {most}")
        return found

    def check(self) -> None:
        """Refuse values that are out of range.

        Raises:
            UsageError: naming the flag.
        """
        lows = {"context": 0, "threads": 0, "queue": 0, "max_new_tokens": 1, "port": 0}
        for name, low in lows.items():
            if getattr(self, name) < low:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name)}: must be {low} or more")
        for name, high in {"port": 65535, "queue": limits.MOST_WAITING}.items():
            if getattr(self, name) > high:
                raise UsageError(f"--{name} {getattr(self, name)}: must be {high} or less")
        if not 0 <= self.temperature <= 2:
            raise UsageError(f"--temperature {self.temperature}: must be 0 to 2")
        if "" in self.stop:
            raise UsageError("--stop: a stop text is empty")
