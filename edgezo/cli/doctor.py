"""`edgezo doctor`: the installed packages and the machine."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import click

from edgezo._version import __version__
from edgezo.cli.terminal.output import json_option, print_result, table
from edgezo_runtime.errors import EdgezoError

MODULE = "onnxruntime"

_PACKAGES = (
    "numpy",
    "safetensors",
    "tokenizers",
    "onnxruntime-ep-webgpu",
    "torch",
    "transformers",
    "optimum",
    "peft",
)


@click.command(
    name="doctor", short_help="Show the installed packages and the machine, and find problems."
)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show the installed packages and the machine. Exit with code 1 if there is a problem."""
    flavours = find_flavours()
    report = _report(flavours)
    problems = [*find_problems(flavours), *_import_problem(flavours)]
    report["problems"] = problems
    report["devices"] = [] if problems else _devices()
    rows = [
        ("edgezo", __version__),
        ("python", str(report["python"])),
        ("machine", str(report["machine"])),
        ("cores", str(report["cores"])),
        ("memory", f"{_size(report['available_bytes'])} available"),
        ("memory limit", _size(report["limit_bytes"]) if report["limit_bytes"] else "none"),
        (MODULE, ", ".join(f"{name} {v}" for name, v in flavours.items()) or "not installed"),
    ]
    rows += [(name, version or "-") for name, version in report["packages"].items()]
    rows += [(f"device {found['name']}", _told(found)) for found in report["devices"]]
    lines = table(rows) + [f"problem: {text}" for text in problems]
    print_result(report, lines, as_json)
    if problems:
        ctx.exit(EdgezoError.exit_code)


def find_flavours() -> dict[str, str]:
    """Installed distributions that have the module onnxruntime, with their versions."""
    names = metadata.packages_distributions().get(MODULE, [])
    return {name: metadata.version(name) for name in sorted(set(names))}


def find_problems(flavours: dict[str, str]) -> list[str]:
    """Problems of the installed flavours of onnxruntime, each with its remedy."""
    if not flavours:
        return [f"{MODULE} is not installed; run pip install 'edgezo[cpu]'"]
    if len(flavours) > 1:
        names = " ".join(flavours)
        return [
            f"{' and '.join(flavours)} overwrite each other; run pip "
            f"uninstall {names}, then pip install 'edgezo[cpu]'"
        ]
    return []


def _import_problem(flavours: dict[str, str]) -> list[str]:
    from edgezo_runtime.devices.library import import_onnxruntime

    if len(flavours) != 1:
        return []
    try:
        import_onnxruntime()
    except EdgezoError as error:
        return [str(error)]
    return []


def _report(flavours: dict[str, str]) -> dict[str, Any]:
    from edgezo_runtime.engine.sessions import available_cores
    from edgezo_runtime.system.memory import available_bytes, limit_bytes

    return {
        "edgezo": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": available_cores(),
        "available_bytes": available_bytes(),
        "limit_bytes": limit_bytes(),
        MODULE: flavours,
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _devices() -> list[dict[str, Any]]:
    """The ways to a GPU, each tested for a second against the processor."""
    from edgezo_runtime.devices.choice import look_everywhere

    found: list[dict[str, Any]] = []
    for way in look_everywhere():
        entry: dict[str, Any] = {"name": way.name, "problem": way.problem or None}
        if way.gpu is not None and way.test is not None:
            facts = way.gpu.facts
            entry |= {
                "label": facts.label,
                "provider": way.gpu.provider,
                "total_bytes": facts.total_bytes,
                "float16": facts.float16,
                "software": facts.is_software,
                "block_s": way.test.seconds,
                "cpu_block_s": way.test.cpu_seconds,
                "difference": way.test.difference if way.test.is_finite else None,
            }
        found.append(entry)
    return found


def _told(found: dict[str, Any]) -> str:
    """A way to a GPU, for people."""
    if "label" not in found:
        return f"none: {found['problem']}"
    size = found["total_bytes"]
    float16 = {None: "float16 unknown", True: "float16", False: "no float16"}[found["float16"]]
    facts = [
        found["label"],
        found["provider"],
        "memory unknown" if size is None else _size(size),
        float16,
    ]
    if found["problem"]:
        return f"{', '.join(facts)}: {found['problem']}"
    facts.append(f"self-test passed, {1e3 * found['block_s']:.2f} ms a block")
    facts.append(f"a core of the processor {1e3 * found['cpu_block_s']:.2f} ms")
    if found["software"]:
        facts.append("for tests only: auto never takes it")
    return ", ".join(facts)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _size(size_bytes: int) -> str:
    from edgezo_runtime.system.sizes import format_size

    return format_size(size_bytes)
