"""What a report says of a run in words and numbers, whatever it is written as."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgezo.pictures.intervals import ShareOfRows, wilson
from edgezo.report.charts import score_name, score_of
from edgezo.runs.run_record import EvaluationLine, RunRecord
from edgezo.wording import duration, percent, rate
from edgezo_runtime.budget.ledger import MEANING
from edgezo_runtime.system.sizes import format_size

RESERVE = "budget less the peak"


@dataclass(frozen=True, slots=True)
class Card:
    """A number at the head of a report.

    Attributes:
        label: what it is.
        value: the number.
        note: more words.
        share: of a limit, for a gauge; None without one.
        mark: predicted share of the limit.
        good: is it better than before? None where there is nothing to compare.
    """

    label: str
    value: str
    note: str = ""
    share: float | None = None
    mark: float | None = None
    good: bool | None = None


def cards(run: RunRecord) -> list[Card]:
    """The numbers at the head of a report."""
    found = [card for card in (_score_card(run), _test_card(run)) if card is not None]
    return [*found, _time_card(run), *_memory_cards(run)]


def _score_card(run: RunRecord) -> Card | None:
    before, after = run.before, run.after
    rows = next((own.rows for own in (after, before) if own is not None and own.rows), 0)
    on = f"{rows:,} validation rows" if rows else "validation rows"
    first, last = _scores(before), _scores(after)
    if first is None and last is None:
        return _loss_card(before, after, on)
    text = " → ".join(percent(value) for value in (first, last) if value is not None)
    note, good = on, None
    if first is not None and last is not None:
        note = f"{100 * (last - first):+.1f} points on {on}".replace("-", "\N{MINUS SIGN}")
        good = last > first
    return Card(score_name(run), text, note, good=good)


def _loss_card(before: EvaluationLine | None, after: EvaluationLine | None, on: str) -> Card | None:
    values = [own.loss for own in (before, after) if own is not None]
    if not values:
        return None
    good = values[-1] < values[0] if len(values) == 2 else None
    return Card("loss", " → ".join(f"{value:.3f}" for value in values), on, good=good)


def _test_card(run: RunRecord) -> Card | None:
    test = run.test
    if test is None:
        return None
    value = score_of(test)
    if value is None:
        return Card("loss on test rows", f"{test.loss:.3f}", f"{test.rows:,} rows")
    note = f"{test.rows:,} rows"
    if test.score is None and test.rows:
        low, high = wilson(value, test.rows)
        note = f"{100 * low:.1f} to {100 * high:.1f} % (95 %), {test.rows:,} rows"
    return Card(f"{score_name(run)} on test rows", percent(value), note)


def _time_card(run: RunRecord) -> Card:
    steps = len(run.steps) and int(run.steps.step[-1])
    planned = run.receipt.get("steps_planned")
    of = f" of {planned:,}" if isinstance(planned, int) and planned != steps else ""
    note = f"{steps:,}{of} steps"
    if run.after is not None and run.after.step != steps:
        note += f", step {run.after.step:,} kept"
    speed = run.receipt.get("rows_per_s")
    if isinstance(speed, (int, float)):
        note += f", {rate(speed)} rows/s"
    return Card("time of steps", duration(run.seconds), note)


def _memory_cards(run: RunRecord) -> list[Card]:
    peak, budget = run.peak_bytes, run.budget_bytes
    if peak is None:
        return []
    if not budget:
        return [Card("peak memory", format_size(peak), "of the process")]
    predicted = run.receipt.get("predicted_bytes")
    note, mark = f"of {format_size(budget)}", None
    if isinstance(predicted, int):
        note += f"; {format_size(predicted)} were predicted"
        mark = predicted / budget
    return [Card("peak memory", format_size(peak), note, peak / budget, mark)]


def shares(run: RunRecord) -> list[ShareOfRows]:
    """Accuracies with their numbers of rows, for intervals."""
    named = (("before", run.before, 1), ("after", run.after, 0), ("test", run.test, 2))
    return [
        ShareOfRows(name, own.accuracy, own.rows, series)
        for name, own, series in named
        if own is not None and own.accuracy is not None and own.rows
    ]


def ledger(run: RunRecord) -> list[tuple[str, int, str]]:
    """Parts of the planned memory: names, bytes, meanings; the reserve comes last."""
    plan = run.receipt.get("plan")
    parts = plan.get("ledger") if isinstance(plan, dict) else None
    if not isinstance(parts, dict):
        return []
    sizes = {name: size for name, size in parts.items() if isinstance(size, int) and size > 0}
    reserve = sizes.pop("reserve", 0)
    found = [(name, size, MEANING.get(name, "")) for name, size in sizes.items()]
    return [*found, ("reserve", reserve, RESERVE)] if reserve else found


_SHOWN = (
    "bundle", "data", "valid", "test", "template", "label", "max_seq", "train_on", "long",
    "objective", "method", "batch_size", "seed", "keep", "adapter",
)  # fmt: skip


def settings(run: RunRecord) -> list[tuple[str, str]]:
    """The settings that say most; `all_settings` has every one."""
    found = [(name, shown(run.settings[name])) for name in _SHOWN if _is_set(run.settings, name)]
    words = run.receipt.get("rates")
    if isinstance(words, str) and words:
        found.append(("rates", words))
    if isinstance(run.receipt.get("scope"), str):
        found.append(("scope", str(run.receipt["scope"])))
    return found


def all_settings(run: RunRecord) -> list[tuple[str, str]]:
    """Every setting of config.json."""
    return [(name, shown(value)) for name, value in run.settings.items()]


def receipt_rows(run: RunRecord) -> list[tuple[str, str]]:
    """The receipt without what the report shows elsewhere."""
    left_out = ("plan", "warnings", "events", "long_rows", "reliefs")
    return [(name, shown(value)) for name, value in run.receipt.items() if name not in left_out]


def _is_set(values: Mapping[str, Any], name: str) -> bool:
    return values.get(name) not in (None, [], "")


def shown(value: object) -> str:
    """A value of a JSON file as a short text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(repr(own) if isinstance(own, str) else shown(own) for own in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(own)}" for key, own in value.items()) or "-"
    return str(value)


def warnings(run: RunRecord) -> list[str]:
    """What the run warned of: its data, its memory, its end."""
    found = [str(text) for text in run.receipt.get("warnings") or []]
    error = run.receipt.get("error")
    found += [str(error)] if error else []
    return found


def happenings(run: RunRecord, kind: str) -> list[tuple[int, str]]:
    """Events of a kind, "divergence" or "pressure": steps and texts."""
    return [(event.step, event.text) for event in run.events if event.kind == kind]


def digests(run: RunRecord) -> list[tuple[str, str]]:
    """SHA-256 of what went in and what came out."""
    found = []
    if run.header is not None:
        found += [("inputs of the run", run.header.digest()), ("rows", run.header.data)]
        found += [("tokens of the rows", run.header.tokens)]
        found += [(f"bundle: {name}", own) for name, own in _few(run.header.bundle).items()]
    adapter = run.receipt.get("adapter_sha256")
    return [*found, ("adapter", adapter)] if isinstance(adapter, str) else found


def _few(files: Mapping[str, str]) -> dict[str, str]:
    """The files of a bundle that say which model it is; there are dozens of graphs."""
    return {name: own for name, own in files.items() if "/" not in name}


def commands(run: RunRecord) -> list[tuple[str, str]]:
    """Commands that repeat the run, check it and use it: what each does, and its line."""
    path, bundle = str(run.folder.path), run.settings.get("bundle")
    found = []
    if run.state in ("unfinished", "interrupted"):
        found.append(("go on", _line("edgezo", "tune", "--resume", "-o", path)))
    if run.settings:
        config = str(run.folder.config)
        found.append(("tune again", _line("edgezo", "tune", "--config", config, "-o", f"{path}-2")))
    if isinstance(bundle, str):
        replay = _line("edgezo", "replay", bundle, path, "-o", "adapter.safetensors")
        found.append(("make the adapter from the journal", replay))
        rows = _one(run.settings.get("test")) or _one(run.settings.get("valid"))
        if rows:
            line = _line("edgezo", "eval", bundle, "--adapter", path, "--data", rows)
            found.append(("evaluate", line))
    found.append(
        (
            "export the adapter",
            _line("edgezo", "adapter", "export", path, f"{path}-peft", "--format", "peft"),
        )
    )
    return found


def _one(value: object) -> str | None:
    """A file of the data; None where there is none."""
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, str) and first != "none" else None


def _line(*parts: str) -> str:
    return shlex.join(parts)


def _scores(found: EvaluationLine | None) -> float | None:
    return None if found is None else score_of(found)


def memory_rows(run: RunRecord) -> list[tuple[str, str]]:
    """How the run kept to its budget, in words."""
    receipt, found = run.receipt, []
    sizes = (("budget", "budget_bytes"), ("predicted peak", "predicted_bytes"))
    for name, key in sizes:
        size = run.budget_bytes if key == "budget_bytes" else receipt.get(key)
        if isinstance(size, int):
            found.append((name, format_size(size)))
    if run.peak_bytes is not None:
        found.append(("measured peak", format_size(run.peak_bytes)))
    plan = receipt.get("plan")
    if isinstance(plan, dict) and isinstance(plan.get("smallest_bytes"), int):
        smallest = format_size(plan["smallest_bytes"], up=True)
        found.append(("smallest sufficient budget", smallest))
    for gain in plan.get("gains", []) if isinstance(plan, dict) else []:
        size = format_size(gain["budget_bytes"], up=True)
        found.append((f"with {size}", f"steps about {gain['speedup']:.2f} times as fast"))
    for name in ("workers", "chunk_tokens", "streamed_blocks"):
        if isinstance(receipt.get(name), int):
            found.append((name.replace("_", " "), f"{receipt[name]:,}"))
    reliefs = receipt.get("reliefs")
    if isinstance(reliefs, list):
        told = "; ".join(map(str, reliefs)) or "none was needed"
        found.append(("measures against short memory", told))
    return found
