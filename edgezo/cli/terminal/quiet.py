"""`--quiet`: results, warnings and errors only."""

from __future__ import annotations

import click

_KEY = "edgezo.quiet"


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_KEY] = True


quiet_option = click.option(
    "--quiet",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_remember,
    help="print no progress and no notes; warnings and errors remain",
)


def is_quiet() -> bool:
    """Was `--quiet` given to the command that runs?"""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_KEY))
