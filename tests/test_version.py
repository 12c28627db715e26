"""The version is written once and reaches both the package and its metadata."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import edgezo
from edgezo._version import __version__

ROOT = Path(__file__).parents[1]


def test_version_has_three_numbers() -> None:
    assert [part.isdecimal() for part in __version__.split(".")] == [True, True, True]


def test_package_reexports_version() -> None:
    assert edgezo.__version__ == __version__


def test_pyproject_takes_version_from_package() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in pyproject["project"]
    assert pyproject["project"]["dynamic"] == ["version"]
    attr = pyproject["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attr == "edgezo._version.__version__"


def test_installed_metadata_agrees() -> None:
    try:
        installed = metadata.version("edgezo")
    except metadata.PackageNotFoundError:
        pytest.skip("edgezo runs from the source tree, not installed")
    assert installed == __version__


def test_public_names() -> None:
    names = """
        Background Battery CheckpointEvent DivergenceEvent EdgezoError EndEvent Evaluation
        EvaluationEvent Event EventStream ExamplesEvent Foreground GenerationConfig Governor Idle
        KeptAdapter PauseEvent Prediction PressureEvent ResumeEvent Reward Sampling StepEvent
        StepReport
        Subscription Thermal TuneConfig Tuner TunerStatus __version__
        default_bundle
    """
    assert edgezo.__all__ == names.split()
    assert set(edgezo.__all__) <= set(dir(edgezo))


@pytest.mark.parametrize("name", edgezo.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(edgezo, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgezo' has no attribute 'Trainer'"):
        _ = edgezo.Trainer


def test_import_is_light() -> None:
    heavy = ["numpy", "onnxruntime", "torch", "click", "edgezo_runtime", "edgezo_export"]
    code = f"import sys, edgezo; print([name for name in {heavy} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
