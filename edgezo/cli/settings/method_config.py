"""The configuration of a run, from flags, a file, the method's settings and the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgezo.cli.settings.options import build, flat_fields, given_options
from edgezo_runtime.config import MethodOptions, TuneConfig

CONFIG_CLASSES = (TuneConfig, MethodOptions)
"""The classes whose fields are settings of a run."""


def build_config(values: Mapping[str, Any]) -> TuneConfig:
    """Make the configuration of a run from the keyword arguments of the current command.

    A flag goes before a file, a file before the method's settings, those before the defaults.

    Raises:
        UsageError: the method is unknown.
    """
    names = [field.name for field in flat_fields(TuneConfig) if field.name != "method"]
    given = {name: values[name] for name in given_options(names)}
    from edgezo_runtime.methods.catalogue import method_config

    return method_config(values["method"], options=build(MethodOptions, values), **given)


def flat_config(config: TuneConfig) -> dict[str, Any]:
    """The settings of a run, as a file holds them."""
    flat = dataclasses.asdict(config)
    del flat["options"]
    return {**flat, **config.options.given()}
