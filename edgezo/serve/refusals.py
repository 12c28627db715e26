"""Refusals of requests, in the form that clients of the OpenAI API read."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from edgezo_runtime.errors import (
    BudgetStopError,
    BundleError,
    DataError,
    DoesNotFitError,
    EdgezoError,
    UsageError,
    printable,
)

_LONGEST = 400
_LOG = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        message: what is wrong, and what to do.
        code: for machines; None if there is none.
        param: the field of the request; None if it is not about one.
        headers: further ones of the reply.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = printable(message, _LONGEST)
        self.code = code
        self.param = param
        self.headers = headers or {}

    @property
    def kind(self) -> str:
        """The `type` of the error."""
        known = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        return known.get(self.status, "server_error" if self.status >= 500 else _INVALID)

    def as_json(self) -> dict[str, Any]:
        """The body of the reply."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


_INVALID = "invalid_request_error"


def invalid(param: str, message: str, *, code: str | None = None) -> Refusal:
    """A field of the request is wrong."""
    return Refusal(400, f"'{param}': {message}", param=param, code=code)


def unsupported(param: str, message: str) -> Refusal:
    """A field asks for what this server does not do."""
    return invalid(param, message, code="unsupported_parameter")


def refusal_of(error: EdgezoError | MemoryError) -> Refusal:
    """The refusal for an error of the runtime."""
    if isinstance(error, DoesNotFitError | BudgetStopError | MemoryError):
        return Refusal(503, f"memory is short: {error}", code="memory_short")
    if isinstance(error, UsageError | DataError | BundleError):
        return Refusal(400, str(error))
    return Refusal(500, str(error), code="generation_failed")


def internal(error: Exception) -> Refusal:
    """The refusal for an error of our own: `logging` gets all of it, the client its type."""
    lines = [f"internal error: {type(error).__name__}: {error}"]
    lines += "".join(traceback.format_exception(error)).splitlines()
    _LOG.error("%s", "\n".join(printable(line, _LONGEST) for line in lines))
    return Refusal(500, f"internal error: {type(error).__name__}", code="internal")
