"""An HTTP service that learns from the examples it receives and answers meanwhile.

    pip install 'edgezo[cpu,export,examples]'
    python examples/http_service.py

    curl localhost:8080/classify -H 'Content-Type: application/json' -d '{"text": "dim the lamp"}'
    curl localhost:8080/examples -H 'Content-Type: application/json' \
        -d '[{"text": "dim the lamp", "label": "light"}]'
    curl localhost:8080/generate -H 'Content-Type: application/json' \
        -d '{"prompt": "Once upon a time", "max_new_tokens": 20}'
    curl localhost:8080/status
    curl -X POST localhost:8080/pause
    curl -N localhost:8080/events

Prints the accuracy on unseen utterances before it learns, serves until Ctrl-C, and prints the
accuracy again:

    before: accuracy 0.38 on 104 utterances
    ...
    after 134 steps: accuracy 0.85 on 104 utterances

It has learned its first examples after about a minute on two cores. Before the first call the
default model is exported once; an argument names another bundle. The next call resumes the run in
the folder "service".

The threads of the requests and the thread that tunes share one process and its loaded blocks. For
more than a trial, run `create_app` under a WSGI server with threads and one process, such as
waitress.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, request

from edgezo import (
    EdgezoError,
    Event,
    GenerationConfig,
    TuneConfig,
    Tuner,
    TunerStatus,
    default_bundle,
)

intents = ["light", "music", "timer", "weather", "message", "map", "volume", "heat"]
data = Path(__file__).parent.parent / "edgezo" / "data" / "device_commands"

MOST_TOKENS = 200  # per text, so that no client occupies the model for long


def open_tuner(bundle: str | Path, run: str = "service") -> Tuner:
    """Begin a run with the examples that come with edgezo, or resume the run in the folder."""
    return Tuner.open(
        bundle,
        data / "train.jsonl",
        TuneConfig(epochs=4),
        run=run,
        template='"{text}" is about the',
        labels=[f" {intent}" for intent in intents],
        max_seq=64,
        budget="2GB",
    )


def plain(found: TunerStatus | Event) -> dict[str, Any]:
    """The fields of an object for JSON; a number that is not finite becomes None."""

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        odd = lambda value: isinstance(value, float) and not math.isfinite(value)  # noqa: E731
        return {name: None if odd(value) else value for name, value in pairs}

    return asdict(found, dict_factory=fields)


def create_app(tuner: Tuner) -> Flask:
    """The endpoints around a tuner; all of its methods may be called by any thread."""
    app = Flask("edgezo-service")

    @app.errorhandler(EdgezoError)
    def refuse(error: EdgezoError) -> tuple[dict[str, str], int]:
        return {"error": str(error)}, 400 if isinstance(error, ValueError) else 503

    @app.post("/classify")
    def classify() -> dict[str, object]:
        row = request.get_json()
        with tuner.paused("a request"):  # waits for one block, not for a step
            found = tuner.classify(row)
        return {"label": found.label.strip(), "probabilities": found.probabilities}

    @app.post("/generate")
    def generate() -> dict[str, str]:
        query = request.get_json()
        if not isinstance(query, dict) or not isinstance(query.get("prompt"), str | list):
            abort(400, "expected an object with a prompt: a text, or messages of a conversation")
        most = query.get("max_new_tokens", 64)
        if type(most) is not int or not 1 <= most <= MOST_TOKENS:
            abort(400, f"expected max_new_tokens of 1 to {MOST_TOKENS}")
        # Not in `paused`: a text takes long, so its tokens take turns with the steps.
        return {"text": tuner.generate(query["prompt"], GenerationConfig(most))}

    @app.post("/examples")
    def add() -> tuple[dict[str, int], int]:
        rows = request.get_json()
        if not isinstance(rows, list):  # a string would name a file of the server
            abort(400, "expected an array of rows")
        return {"examples": tuner.add(rows)}, 201

    @app.get("/status")
    def status() -> dict[str, object]:
        return plain(tuner.status)

    @app.post("/pause")
    def pause() -> dict[str, object]:
        tuner.pause("paused over HTTP", wait=True)
        return plain(tuner.status)

    @app.post("/resume")
    def resume() -> dict[str, object]:
        tuner.resume()
        return plain(tuner.status)

    @app.get("/events")
    def events() -> Response:
        def lines() -> Iterator[str]:
            with tuner.events() as stream:
                for event in stream:
                    text = json.dumps(plain(event), default=str)
                    yield f"event: {type(event).__name__}\ndata: {text}\n\n"

        return Response(lines(), mimetype="text/event-stream")

    return app


def measure(tuner: Tuner, when: str) -> None:
    """Print the accuracy on unseen utterances."""
    found = tuner.evaluate(data / "valid.jsonl")
    print(f"{when}: accuracy {found.accuracy:.2f} on {found.rows} utterances", flush=True)


if __name__ == "__main__":
    print("A service that learns while it answers; learns for about a minute, ends by Ctrl-C.")
    with open_tuner(sys.argv[1] if sys.argv[1:] else default_bundle()) as tuner:
        measure(tuner, f"after {tuner.step_number} steps" if tuner.step_number else "before")
        tuner.run_in_background(keep_going=True)
        create_app(tuner).run(port=8080, threaded=True)  # returns at Ctrl-C
        tuner.cancel()
        measure(tuner, f"after {tuner.step_number} steps")
