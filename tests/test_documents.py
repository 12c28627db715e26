"""README and docs name files, commands, options and public names that exist."""

import ast
import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

import edgezo
from edgezo.cli import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "tests/**/*.md", "edgezo/data/**/*.md")
    for path in ROOT.glob(pattern)
)
ALL = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))

PACKAGES = [ROOT / "runtime" / "edgezo_runtime", ROOT / "export" / "edgezo_export"]
"""A path may be given from one of these."""

FORMER = {"0019-rooms.md", "CHANGELOG.md"}
"""Pages that list former names."""

BENCHMARKS = {"--fp32", "--int8", "--model", "--only-report"}
FOREIGN = {"--adapter-path", "--import-mode", "--lora", *BENCHMARKS}
"""Options of other programs: mlx-lm, pytest, llama.cpp, the benchmarks."""


def text_of(path: Path) -> str:
    """The text of a document."""
    return path.read_text(encoding="utf-8")


def inline_code(path: Path) -> list[str]:
    """What stands in backquotes, outside of code blocks."""
    text = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks in a language."""
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, text_of(path), flags=re.DOTALL | re.MULTILINE)


def commands(path: Path) -> list[list[str]]:
    """Words of every line that starts with edgezo, without the program; "..." is left out."""
    joined = text_of(path).replace("\\\n", " ")
    lines = re.findall(r"^(?: {4})?edgezo ([a-z-]+ .*)$", joined, flags=re.MULTILINE)
    found = [shlex.split(line, comments=True) for line in lines if path.name != "help.md"]
    return [[word for word in words if word != "..."] for words in found]


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words call, and its arguments."""
    command: click.Command = main
    while isinstance(command, click.Group) and words:
        child = command.get_command(click.Context(command), words[0])
        assert child is not None, f"edgezo has no command {words[0]!r}"
        command, words = child, words[1:]
    return command, words


def options(command: click.Command) -> Iterator[str]:
    """Every option of a command and of those below it."""
    for parameter in command.get_params(click.Context(command)):
        yield from (*parameter.opts, *parameter.secondary_opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            child = command.get_command(click.Context(command), name)
            assert child is not None
            yield from options(child)


def anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")


@ALL
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if "://" in target:
            continue
        name, _, place = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        if place:
            headings = re.findall(r"^#+ (.*)$", text_of(file), flags=re.MULTILINE)
            assert place in map(anchor, headings), target


@ALL
def test_named_files_exist(path: Path) -> None:
    bases = [ROOT, path.parent, *PACKAGES]
    for code in inline_code(path):
        if "/" not in code or re.search(r"[\s<>*:{|]", code):
            continue
        if code.endswith("/"):  # a folder, unless it is one of the reader's own
            ours = any((base / code.split("/")[0]).is_dir() for base in bases if code[0] != "/")
        else:
            ours = code.endswith((".py", ".md"))
        if ours:
            assert any((base / code).exists() for base in bases), code


def is_module_or_name(dotted: str) -> bool:
    """Is there such a module of the runtime or the exporter, or such a name in one?"""
    root, *parts = dotted.split(".")
    base = next(package for package in PACKAGES if package.name == root)
    *folder, last = parts
    file = base.joinpath(*parts)
    if file.is_dir() or file.with_suffix(".py").is_file():
        return True
    owner = base.joinpath(*folder).with_suffix(".py")
    return owner.is_file() and re.search(rf"\b{last}\b", text_of(owner)) is not None


@ALL
def test_named_modules_exist(path: Path) -> None:
    names = [code.partition("(")[0] for code in inline_code(path) if path.name not in FORMER]
    for name in names:
        if re.match(r"edgezo_(runtime|export)\.", name):
            assert is_module_or_name(name), name


@ALL
def test_commands_parse(path: Path) -> None:
    for words in commands(path):
        command, arguments = resolve(words)
        context = click.Context(command)
        given, left, _ = command.make_parser(context).parse_args(list(arguments))
        assert not left, words
        for parameter in command.params:
            value = given.get(parameter.name or "")
            if value not in (None, ()) and not isinstance(parameter.type, click.Path | click.File):
                parameter.type_cast_value(context, value)


@ALL
def test_named_options_exist(path: Path) -> None:
    known = {*options(main), *FOREIGN}
    for code in inline_code(path):
        if code.startswith(("-", "edgezo ")) and path.name not in FORMER:
            unknown = set(re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", code)) - known
            assert not unknown, code
        if re.match(r"edgezo [a-z]+( |$)", code):
            resolve(re.findall(r"[a-z]+", code.split(" --")[0])[1:2])


@pytest.mark.parametrize(
    "path",
    [*DOCUMENTS, *sorted((ROOT / "examples").glob("*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_python_uses_public_names(path: Path) -> None:
    for code in [text_of(path)] if path.suffix == ".py" else blocks(path, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "edgezo":
                assert {alias.name for alias in node.names} <= set(edgezo.__all__)
            elif isinstance(node, ast.Call):
                check_call(node)
    for code in inline_code(path):
        if re.match(r"(Tuner\.open|TuneConfig|GenerationConfig)\(.*\)$", code) and "=," not in code:
            check_call(ast.parse(code, mode="eval").body)


def check_call(node: ast.AST) -> None:
    """Refuse keywords that a public callable does not have."""
    callables: dict[str, Callable[..., object]] = {
        "Tuner.open": edgezo.Tuner.open,
        "TuneConfig": edgezo.TuneConfig,
        "GenerationConfig": edgezo.GenerationConfig,
    }
    if isinstance(node, ast.Call) and (name := ast.unparse(node.func)) in callables:
        known = inspect.signature(callables[name]).parameters
        for keyword in node.keywords:
            assert keyword.arg in known, f"{name}: {keyword.arg}"
