"""The command line: one module or package per verb, imported when the verb runs.

It owns flags, settings files, terminal output and exit codes. It must not know how a bundle is made
or a step is taken: it calls `edgezo_export` and `edgezo_runtime`.
"""

from __future__ import annotations

import errno
from typing import Any

import click

from edgezo._version import __version__
from edgezo.cli.lazy_group import LazyGroup
from edgezo.cli.settings.flags import with_flags
from edgezo.cli.settings.missing import explained
from edgezo.cli.terminal.code_page import forgive_code_pages
from edgezo.cli.terminal.output import harmless
from edgezo_runtime.errors import DoesNotFitError, EdgezoError, InterruptedRunError
from edgezo_runtime.system.memory_errors import budget_stop

__all__ = ["main"]


class _Main(LazyGroup):
    """Turn edgezo's errors into a message on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb."""
        forgive_code_pages()
        try:
            return super().invoke(ctx)
        except click.MissingParameter as error:
            raise explained(error) from error
        except EdgezoError as error:
            click.echo(f"error: {harmless(with_flags(str(error)))}", err=True)
            ctx.exit(error.exit_code)
        except MemoryError as error:
            click.echo(f"error: {harmless(with_flags(str(budget_stop(error))))}", err=True)
            ctx.exit(DoesNotFitError.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of stdout has left; click deals with it
                raise
            click.echo(f"error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
            ctx.exit(EdgezoError.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(InterruptedRunError.exit_code)


_EPILOG = (
    "Exit codes: 0 done, 1 failure, 2 wrong usage, 3 does not fit in the budget, 4 stopped at the "
    "budget with the state saved, 5 wrong data, 130 interrupted with the state saved."
)


@click.group(
    cls=_Main,
    verbs={
        "export": "edgezo.cli.export",
        "bundle": "edgezo.cli.bundle.command",
        "init": "edgezo.cli.init.command",
        "data": "edgezo.cli.data.command",
        "plan": "edgezo.cli.plan",
        "tune": "edgezo.cli.tune.command",
        "eval": "edgezo.cli.eval.command",
        "generate": "edgezo.cli.generate.command",
        "chat": "edgezo.cli.chat.command",
        "serve": "edgezo.cli.serve.command",
        "adapter": "edgezo.cli.adapter.command",
        "report": "edgezo.cli.report.command",
        "runs": "edgezo.cli.runs.command",
        "replay": "edgezo.cli.replay",
        "methods": "edgezo.cli.methods",
        "doctor": "edgezo.cli.doctor",
    },
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="edgezo", message="%(prog)s %(version)s")
def main() -> None:
    """Fine-tune language models on the device that runs them, within a memory budget.

    Results go to stdout, progress and warnings to stderr.
    """
