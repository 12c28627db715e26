"""Imports point one way: edgezo -> {edgezo_export, edgezo_runtime}, export -> runtime.

Inside the runtime and the exporter they point down the lists `RUNTIME` and `EXPORT`, and no module
imports itself by way of others.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    "edgezo": ROOT / "edgezo",
    "edgezo_export": ROOT / "export" / "edgezo_export",
    "edgezo_runtime": ROOT / "runtime" / "edgezo_runtime",
}
RUNTIME = [
    "errors",
    "config",
    "noise",
    "system",
    "governors",
    "bundle",
    "methods",
    "data",
    "devices",
    "engine",
    "journal",
    "generation",
    "adapters",
    "evaluation",
    "training",
    "budget",
    "app",
]
"""Packages of the runtime from the ground up: each may import those before it."""

EXPORT = [
    "errors",
    "sources",
    "quantization",
    "trace",
    "known_sizes",
    "graph_builder",
    "schemes",
    "operators",
    "graphs",
    "derivatives",
    "calibration",
    "adapters",
    "proofs",
    "bundle_graphs",
    "unfinished",
    "export",
    "requantize",
]
"""The same of the exporter."""

TOP = ["wording", "pictures", "runs", "report", "trackers", "data_check", "talk", "serve", "cli"]
"""The same of `edgezo`: its packages, and the module `wording`."""

WORKSTATION_ONLY = ["torch", "onnx", "onnx_ir", "onnxscript", "transformers", "optimum", "gguf"]


def loaded_after(code: str, names: list[str]) -> list[str]:
    """Run code in a fresh interpreter and return which of the modules it left loaded."""
    report = f"import sys\n{code}\nprint([n for n in {names} if n in sys.modules], file=sys.stderr)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(p.parent) for p in SOURCES.values())}
    done = subprocess.run(
        [sys.executable, "-c", report], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded: list[str] = ast.literal_eval(done.stderr.strip().splitlines()[-1])
    return loaded


def imported_roots(path: Path) -> Iterator[str]:
    """Yield the top-level package of every import in a file, nested ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def runtime_modules() -> list[str]:
    """Return the dotted name of every module of the runtime."""
    base = SOURCES["edgezo_runtime"].parent
    names = [".".join(p.relative_to(base).with_suffix("").parts) for p in base.rglob("*.py")]
    return sorted(name.removesuffix(".__init__") for name in names)


def test_runtime_needs_no_workstation_package() -> None:
    assert loaded_after("import edgezo_runtime", WORKSTATION_ONLY) == []


def test_no_runtime_module_loads_a_workstation_package() -> None:
    code = "\n".join(f"import {name}" for name in runtime_modules())
    assert loaded_after(code, WORKSTATION_ONLY) == []


@pytest.mark.skipif(find_spec("edgezo.cli") is None, reason="there is no CLI yet")
def test_help_needs_no_numerics() -> None:
    code = "from edgezo.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    heavy = ["numpy", "onnxruntime", *WORKSTATION_ONLY]
    assert loaded_after(code, heavy) == []


@pytest.mark.parametrize(
    ("package", "banned"),
    [
        ("edgezo_runtime", {"edgezo", "edgezo_export", *WORKSTATION_ONLY}),
        ("edgezo_export", {"edgezo"}),
    ],
)
def test_sources_import_one_way(package: str, banned: set[str]) -> None:
    files = sorted(SOURCES[package].rglob("*.py"))
    assert files
    wrong = {
        str(f.relative_to(ROOT)): found for f in files if (found := banned & {*imported_roots(f)})
    }
    assert wrong == {}


@pytest.mark.parametrize("package", sorted(SOURCES))
def test_packages_ship_type_information(package: str) -> None:
    spec = find_spec(package)
    assert spec is not None
    assert (SOURCES[package] / "py.typed").is_file()


def test_onnxruntime_tells_nobody(tmp_path: Path) -> None:
    """Pins a database of what was run, in the user's cache, which onnxruntime sends out."""
    code = "import edgezo_runtime.devices.library as s; s.import_onnxruntime().SessionOptions()"
    kept = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    env = {**kept, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "CI": ""}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert not list(tmp_path.rglob("*"))


def modules() -> dict[str, Path]:
    """Dotted name of every module -> its file."""
    found: dict[str, Path] = {}
    for base in SOURCES.values():
        for file in base.rglob("*.py"):
            parts = file.relative_to(base.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def arrows() -> dict[str, set[str]]:
    """Module -> the modules of this project that it imports, nested imports included."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, file in known.items():
        targets: set[str] = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= (inner & known.keys()) or {node.module}
        found[name] = (targets & known.keys()) - {name}
    return found


@pytest.mark.parametrize(
    ("root", "order"), [("edgezo_runtime", RUNTIME), ("edgezo_export", EXPORT)]
)
def test_packages_import_downwards(root: str, order: tuple[str, ...]) -> None:
    names = {name.split(".")[1] for name in modules() if name.startswith(f"{root}.")}
    assert names == set(order)
    wrong = []
    for name, targets in arrows().items():
        for target in targets:
            if name.startswith(f"{root}.") and target.startswith(f"{root}."):
                own, other = name.split(".")[1], target.split(".")[1]
                if order.index(other) > order.index(own):
                    wrong.append(f"{name} imports {target}, which is above it")
    assert wrong == []


def test_packages_at_the_top_import_downwards() -> None:
    wrong = []
    for name, targets in arrows().items():
        own = name.split(".")[1:2]
        for target in targets:
            other = target.split(".")[1:2] if target.startswith("edgezo.") else []
            known = {*own, *other} <= set(TOP) and own and other
            if known and name.startswith("edgezo.") and TOP.index(other[0]) > TOP.index(own[0]):
                wrong.append(f"{name} imports {target}, which is above it")
    assert wrong == []
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    places = [text.index(f"`{name}` (") for name in TOP[:-1]]
    assert places == sorted(places)


def test_no_module_imports_itself() -> None:
    graph = arrows()
    done: set[str] = set()
    circles: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circles.append(" -> ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for target in sorted(graph[name]):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    assert circles == []


@pytest.mark.parametrize("order", [RUNTIME, EXPORT], ids=["runtime", "export"])
def test_the_map_lists_the_packages_in_order(order: list[str]) -> None:
    """`CONTRIBUTING.md` opens with a table of each."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = "".join(f"| `{name}` |[^\\n]*\\n".replace("|", r"\|") for name in order)
    assert re.search(rows, text)
