"""The application: paths, and what becomes of a request on its way to an answer and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edgezo.serve import limits
from edgezo.serve.answers import Answers, Written
from edgezo.serve.refusals import Refusal, internal
from edgezo.serve.replies import Replies, event, model_entry
from edgezo.serve.requests import TextRequest, parse_request
from edgezo.serve.token_scores import ScoredToken
from edgezo.serve.writing_line import Job, WritingLine
from edgezo_runtime.errors import printable

if TYPE_CHECKING:
    from edgezo.serve.guard import Guard

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Service:
    """What the paths need.

    Attributes:
        answers: writes.
        line: where requests wait.
        guard: who may ask.
        log: given a line for each request.
    """

    answers: Answers
    line: WritingLine
    guard: Guard
    log: Callable[[str], None]

    # --- paths ---

    async def health(self, request: Request) -> Response:
        """Is the server up? Needs no key."""
        return JSONResponse({"status": "ok", "waiting": self.line.waiting})

    async def models(self, request: Request) -> Response:
        """All models."""
        voices = self.answers.speaker.voices.values()
        return JSONResponse({"object": "list", "data": [model_entry(voice) for voice in voices]})

    async def model(self, request: Request) -> Response:
        """One model."""
        return JSONResponse(model_entry(self.answers.voice(request.path_params["name"])))

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        return await self._answer(request, chat=True)

    async def completion(self, request: Request) -> Response:
        """Continue a text."""
        return await self._answer(request, chat=False)

    # --- one answer ---

    async def _answer(self, request: Request, *, chat: bool) -> Response:
        job = Job(asyncio.get_running_loop())
        self.line.enter(job)  # first, so that no more bodies are held than there are places
        with contextlib.ExitStack() as ends:
            ends.callback(self.line.leave, job)
            asked = await self._asked(request, chat=chat)

            def work(check: Callable[[], None]) -> Iterator[object]:
                return self.answers.write(asked, check)

            self.line.submit(job, work)
            watch = asyncio.create_task(self._leave_with_client(request, job))
            ends.callback(watch.cancel)
            first = await job.events.get()  # errors before the first token have a status of HTTP
            if isinstance(first, Refusal):
                raise first
            replies = Replies(asked.model, asked.is_chat)
            if asked.streams:
                parts = self._stream(job, first, replies, asked)
                return _EventStream(parts, ends.pop_all())
            return JSONResponse(await self._whole(job, first, replies))

    async def _asked(self, request: Request, *, chat: bool) -> TextRequest:
        """Read and check a request."""
        try:
            body = await asyncio.wait_for(self.guard.body(request), limits.BODY_S)
        except TimeoutError:
            headers = {"Connection": "close"}
            raise Refusal(408, "the request took too long to arrive", headers=headers) from None
        asked = parse_request(body, chat=chat)
        self.answers.check(asked)
        if asked.unknown:
            self.log(f"not known, left out: {', '.join(printable(n, 40) for n in asked.unknown)}")
        return asked

    async def _leave_with_client(self, request: Request, job: Job) -> None:
        """End a job when its client has gone."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.line.leave(job)
        job.tell(Refusal(499, "the client has gone"))

    async def _whole(self, job: Job, first: object, replies: Replies) -> dict[str, Any]:
        """Wait for a whole answer."""
        text, scores, last = "", list[ScoredToken](), first
        found: object = first
        while found is not None:
            if isinstance(found, Refusal):
                raise found
            assert isinstance(found, Written)
            text, last = text + found.shown, found
            scores += found.scores or ()
            found = await job.events.get()
        assert isinstance(last, Written)
        self._tell(replies, last)
        asked = None if last.scores is None else scores
        return replies.whole(text, last.finish or "length", last.counts, asked)

    async def _stream(
        self, job: Job, first: object, replies: Replies, asked: TextRequest
    ) -> AsyncIterator[bytes]:
        """The events of a streamed answer."""
        if (opening := replies.first()) is not None:
            yield event(opening)
        last: Written | None = None
        found: object = first
        while found is not None:
            if isinstance(found, Refusal):
                yield event(found.as_json())
                return
            assert isinstance(found, Written)
            last = found
            if found.shown or found.scores:
                yield event(replies.part(found.shown, found.scores))
            found = await job.events.get()
        assert last is not None
        yield event(replies.last(last.finish or "length"))
        if asked.usage:
            yield event(replies.counted(last.counts))
        yield event("[DONE]")
        self._tell(replies, last)

    def _tell(self, replies: Replies, last: Written) -> None:
        own = last.counts
        self.log(
            f"{replies.model}: {own.prompt} prompt tokens ({own.prompt - own.read} known), "
            f"{own.new} new, {last.finish}"
        )


class _EventStream(StreamingResponse):
    """A streamed answer, which ends its job in any case."""

    def __init__(self, parts: AsyncIterator[bytes], ends: contextlib.ExitStack) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(parts, media_type="text/event-stream", headers=headers)
        self._ends = ends

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the parts."""
        with self._ends, contextlib.suppress(ClientDisconnect, OSError):
            await self.stream_response(send)


def make_app(
    answers: Answers, line: WritingLine, guard: Guard, log: Callable[[str], None]
) -> Starlette:
    """The application of ASGI.

    Args:
        answers: writes.
        line: where requests wait.
        guard: who may ask.
        log: given a line for each request.
    """
    service = Service(answers, line, guard, log)

    def checked(handler: Handler, *, open_to_all: bool = False) -> Handler:
        async def run(request: Request) -> Response:
            origin = request.headers.get("origin")
            try:
                guard.check(request)
                if not open_to_all:
                    guard.check_key(request.headers.get("authorization"))
                response = await handler(request)
            except Refusal as refusal:
                response = _refused(refusal)
                log(f"{request.method} {printable(request.url.path)}: {refusal.status} "
                    f"{refusal.message}")  # fmt: skip
            except ClientDisconnect:
                return Response(status_code=499)
            if origin is not None and guard.allows(origin):
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Vary"] = "Origin"
            return response

        return run

    async def preflight(request: Request) -> Response:
        """What a browser asks before a page of an allowed origin may ask."""
        wanted = request.headers.get("access-control-request-headers", "")
        known = [name.strip() for name in wanted.split(",")]
        plain = [name for name in known if name.replace("-", "").isalnum() and name.isascii()]
        return Response(
            status_code=204,
            headers={
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": ", ".join(plain) or "content-type",
                "Access-Control-Max-Age": "600",
            },
        )

    paths: list[tuple[str, str, Handler]] = [
        ("/v1/models", "GET", service.models),
        ("/v1/models/{name:path}", "GET", service.model),
        ("/v1/chat/completions", "POST", service.chat),
        ("/v1/completions", "POST", service.completion),
    ]
    routes = [Route("/health", checked(service.health, open_to_all=True), methods=["GET"])]
    for path, method, handler in paths:
        routes.append(Route(path, checked(handler), methods=[method]))
    if guard.origins:
        open_preflight = checked(preflight, open_to_all=True)
        routes += [Route(path, open_preflight, methods=["OPTIONS"]) for path, _, _ in paths]
    return Starlette(
        routes=routes,
        exception_handlers={HTTPException: _http_error, 500: _failed},  # type: ignore[dict-item]
    )


def _refused(refusal: Refusal) -> Response:
    return JSONResponse(refusal.as_json(), refusal.status, headers=refusal.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    """Paths and methods that there are not."""
    words = {404: "there is no such path", 405: "this path does not take this method"}
    text = words.get(error.status_code, str(error.detail))
    return _refused(Refusal(error.status_code, text, headers=dict(error.headers or {})))


async def _failed(request: Request, error: Exception) -> Response:
    """Errors of our own."""
    return _refused(internal(error))
