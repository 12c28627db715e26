"""The formula for passes against numbers worked out by hand, for a model that is only shapes."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import numpy as np
import pytest

from edgezo_runtime.budget.memory_model import (
    TILE_NUMBERS,
    VOCABULARY_CHUNK,
    BackwardMemoryModel,
    MemoryModel,
    bytes_kept_of_token,
    bytes_of_token,
    bytes_of_weights,
)
from edgezo_runtime.data.heavy_batches import RowSizes
from edgezo_runtime.engine.chunks import COPY_BYTES, PAST_BYTES, WAVE_BYTES, Limits
from edgezo_runtime.engine.first_order_pass import answers_of_part
from edgezo_runtime.engine.prefix_cache import AnswerCache

HIDDEN, WIDE, HEADS, WIDTH, BLOCKS = 64, 96, 2, 16, 3
KEYS_VALUES = 2 * HEADS * WIDTH
BLOCK_BYTES = 5000


def block(past: tuple[int, int] | None = (HEADS, WIDTH)) -> Any:
    """A block with a weight of 64 by 96 and a scale of its own."""
    shapes = {"hidden": ("rows", "tokens", HIDDEN), "up": (HIDDEN, WIDE), "scale": (WIDE,)}
    return types.SimpleNamespace(
        inputs=[
            types.SimpleNamespace(name=name, shape=shape, dtype="uint8" if name == "up" else "")
            for name, shape in shapes.items()
        ],
        weights=[types.SimpleNamespace(input=name) for name in ("up", "scale")],
        past=past,
    )


def bundle(quant: str = "int8", *, continues: bool = True, prompt_tokens: int = 0) -> Any:
    """A model whose blocks have each an adapter of 300 numbers."""
    adapters = [types.SimpleNamespace(block=n, shape=(3, 100), trains=True) for n in range(BLOCKS)]
    manifest = types.SimpleNamespace(
        model=types.SimpleNamespace(hidden_size=HIDDEN, num_blocks=BLOCKS),
        quant=quant,
        scheme=types.SimpleNamespace(prompt_tokens=prompt_tokens),
        graphs=types.SimpleNamespace(blocks=[block()] * BLOCKS, continues=continues),
        trainables=adapters,
    )
    return types.SimpleNamespace(manifest=manifest)


class Rows(list[Any]):
    """Three rows, one of which has so many tokens, and scores all of them or one."""

    def __init__(self, longest: int, kind: str = "labels", per_example: int = 1) -> None:
        scored = [1, 1 if kind == "labels" else longest, 1]
        super().__init__(types.SimpleNamespace(places=np.arange(count)) for count in scored)
        self.kind, self.sequences_per_example = kind, per_example
        self._longest = longest

    def lengths(self) -> Any:
        return np.array([2, self._longest, 3])


def model(of: Any, rows: Rows, *others: Any) -> MemoryModel:
    """The formula for a run whose steps take these rows."""
    of.examples = rows
    return MemoryModel.of(of, others, RowSizes.of(rows, of.batch_size))  # type: ignore[arg-type]


def run(
    of: Any = None,
    *,
    groups: int = 2,
    batch_size: int = 8,
    answers: bool = False,
    first_order: Any = None,
    carried: Any = None,
) -> Any:
    """A tuning run, as far as the formula reads it."""
    cache = object.__new__(AnswerCache) if answers else None
    engine = types.SimpleNamespace(
        bundle=of or bundle(),
        num_blocks=BLOCKS,
        model=types.SimpleNamespace(block_bytes=lambda index: BLOCK_BYTES + index),
    )
    layout = types.SimpleNamespace(first_order=first_order, carried=carried)
    return types.SimpleNamespace(
        engine=engine,
        batch_size=batch_size,
        config=types.SimpleNamespace(prefix_cache=True),
        groups=groups,
        trajectory=types.SimpleNamespace(layout=layout),
        state=types.SimpleNamespace(theta={"a": np.zeros((3, 100), np.float32)}),
        probes=types.SimpleNamespace(make_cache=lambda path: cache),
    )


@pytest.mark.parametrize(("quant", "copies"), [("int8", 4), ("w4", 4), ("fp32", 3), ("w8", 3)])
def test_bytes_of_a_token(quant: str, copies: int) -> None:
    assert bytes_of_token(bundle(quant)) == 4 * (6 * HIDDEN + copies * WIDE)


@pytest.mark.parametrize(
    ("quant", "size"),
    [("int8", 0), ("fp32", 0), ("w4", 2 * 2), ("w8", 5), ("fp16", 4)],  # w4: two codes per byte
)
def test_bytes_of_weights_made_ready(quant: str, size: int) -> None:
    assert bytes_of_weights(bundle(quant)) == size * HIDDEN * WIDE


@pytest.mark.parametrize(
    ("name", "dtype", "per_byte", "made"),
    [
        ("q.codes4", "uint8", 2, 6),  # two codes per byte: opened, joined, float32
        ("q.codes8", "uint8", 1, 4),
        ("q.nf4", "uint8", 2, 10),
        ("q.weight", "float16", 1, 4),
        ("q.weight", "float32", 1, 0),
    ],
)
def test_bytes_of_kept_weights_made_ready(name: str, dtype: str, per_byte: int, made: int) -> None:
    own = bundle("keep")
    weight = types.SimpleNamespace(name=name, shape=(HIDDEN, WIDE), dtype=dtype)
    graph = types.SimpleNamespace(inputs=[weight], weights=[types.SimpleNamespace(input=name)])
    own.manifest.graphs.blocks = [graph]
    assert bytes_of_weights(own) == per_byte * made * HIDDEN * WIDE
    weight.shape = (4096, 14336)  # more than a tile has
    assert bytes_of_weights(own) == made * TILE_NUMBERS


def test_bytes_that_stay_of_a_token() -> None:
    assert bytes_kept_of_token(bundle()) == 4 * (HIDDEN + 2 * KEYS_VALUES)
    assert bytes_kept_of_token(bundle(continues=False)) == 0


def test_sizes_of_a_run_with_label_words() -> None:
    """Eight rows of up to 50 tokens and four virtual ones, two copies of each."""
    found = model(run(bundle(prompt_tokens=4)), Rows(20), Rows(50))
    assert found == MemoryModel(
        bytes_per_token=bytes_of_token(bundle()),
        kept_bytes_per_token=768,
        scorer=0,
        rows=8,
        longest=54,
        groups=2,
        past=0.0,
        past_bytes_per_token=0,
        state_bytes_per_token=256,
        hidden=4 * 8 * 2 * 54 * HIDDEN,
        copies=8 * 2 * 1200,
        weights=0,
        back=None,
    )


def test_sizes_of_a_run_that_scores_tokens() -> None:
    """Three sequences per example; ten chunks of logits twice and three of the head."""
    found = model(run(), Rows(50), Rows(20, "completion", 3))
    assert found.rows == 24
    assert found.scorer == VOCABULARY_CHUNK * (20 * 2 * 20 + 3 * HIDDEN) * 4
    assert found.scored_bytes == VOCABULARY_CHUNK * 20 * 2 * 4
    longer = model(run(), Rows(900, "completion"))
    assert longer.scorer == VOCABULARY_CHUNK * (20 * 2 * 256 + 3 * HIDDEN) * 4


def test_sizes_of_a_run_that_computes_last_tokens() -> None:
    """Keys and values of all blocks as float16, and of one of the three in float32 twice, for two
    groups."""
    found = model(run(answers=True), Rows(50))
    assert found.past_bytes_per_token == 2 * BLOCKS * KEYS_VALUES
    assert found.past == pytest.approx(1 + 2 * (2 + 2) / BLOCKS)
    assert found.hidden == 4 * 8 * 2 * HIDDEN


def test_copies_of_trainables_are_bounded() -> None:
    many = model(run(batch_size=10**6), Rows(5))
    assert many.copies == COPY_BYTES
    assert model(run(batch_size=10**6, groups=10**6), Rows(5)).copies == 1200 * 10**6


@pytest.mark.parametrize(
    ("answers", "tokens", "telling"), [(False, 256, -(-512 // 50)), (True, 8, 16)]
)
def test_sizes_of_a_backward_pass(answers: bool, tokens: int, telling: int) -> None:
    """The last two of three blocks train 300 numbers."""
    first_order = types.SimpleNamespace(first_block=1, names=("a",))
    found = model(run(answers=answers, first_order=first_order), Rows(50), Rows(70))
    assert found.longest == 70  # of all rows; only those of steps go back
    assert found.back == BackwardMemoryModel(
        tokens=tokens,
        telling_rows=telling,
        weights=8 * HIDDEN * WIDE,
        kept=4 * 2 * tokens * HIDDEN,
        sums=300 * 20,
        parts=1 if answers else 2,
        past=8 * 50 * 2 * BLOCKS * KEYS_VALUES if answers else 0,
        waiting=4 * 3 * tokens * HIDDEN + (8 * 50 * 2 * BLOCKS * KEYS_VALUES if answers else 0),
        token_bytes=2 * BLOCKS * KEYS_VALUES if answers else 0,
    )


def test_sizes_of_mean_derivatives() -> None:
    """Those of the last two blocks: float32, behind sums of twice their width and number."""
    first_order = types.SimpleNamespace(first_block=0, names=("a",))
    site = types.SimpleNamespace(last=True)
    own = run(first_order=first_order, carried={0: [site], 1: [site], 2: [site]})
    back = model(own, Rows(50)).back
    assert back is not None
    assert back.learning == 8 * HIDDEN**2 * (4 + 4)
    assert back.sums == 300 * 20 + 2 * 4 * HIDDEN**2
    last = model(run(first_order=first_order, carried={2: [site]}), Rows(50)).back
    assert last is not None
    assert last.learning == 0


def test_learning_and_steps_share_their_memory() -> None:
    learns = dataclasses.replace(MODEL, back=dataclasses.replace(BACK, learning=200))
    assert learns.unsampled(Limits(1), streams=False) == 200
    assert learns.unsampled(Limits(4), streams=False) == 4 * 50 + 60


MODEL = MemoryModel(
    bytes_per_token=1000,
    kept_bytes_per_token=10,
    scorer=7,
    rows=100,
    longest=20,
    groups=2,
    past=0.0,
    past_bytes_per_token=0,
    state_bytes_per_token=256,
    hidden=3 * WAVE_BYTES,
    copies=5,
    weights=0,
    back=None,
)
BACK = BackwardMemoryModel(
    tokens=300, telling_rows=30, weights=400, kept=50, sums=60, parts=9, past=0, waiting=60
)


def test_passes_of_workers() -> None:
    """Every worker counts whole: all of them may be in the same stage."""
    worker = 256 * 1000 + 7 + 5
    assert MODEL.activations(Limits(1), streams=False) == worker
    assert MODEL.activations(Limits(3), streams=False) == 3 * worker
    assert MODEL.activations(Limits(1), streams=True) == worker + WAVE_BYTES
    few = dataclasses.replace(MODEL, hidden=1234)
    assert few.activations(Limits(1), streams=True) == worker + 1234


def test_a_part_of_last_tokens_holds_its_prompts() -> None:
    """In all blocks; where blocks are streamed, they are counted with what waits."""
    answers = dataclasses.replace(MODEL, past=1.5, hidden=1)
    none = dataclasses.replace(answers, back=BACK)
    some = dataclasses.replace(answers, back=dataclasses.replace(BACK, past=10_000))
    for streams, more in ((False, 15_000), (True, 5_000)):
        less, held = (one.activations(Limits(2), streams=streams) for one in (none, some))
        assert held - less == 2 * more


def test_no_more_workers_than_chunks() -> None:
    """Rows of 40 tokens with all copies: six in a chunk."""
    few = dataclasses.replace(MODEL, rows=12)
    assert few.activations(Limits(8), streams=False) == few.activations(Limits(2), streams=False)
    assert few.activations(Limits(2), streams=False) == 2 * (256 * 1000 + 7 + 5)


def test_rows_longer_than_a_chunk() -> None:
    """They go through in segments, of which something stays; or as a whole."""
    segments = MODEL.activations(Limits(1, 32), streams=False)
    assert segments == 32 * 1000 + 7 + 5 + 40 * 10
    whole = dataclasses.replace(MODEL, kept_bytes_per_token=0)
    assert whole.activations(Limits(1, 32), streams=False) == 40 * 1000 + 7 + 5


def test_keys_and_values_of_chunks() -> None:
    answers = dataclasses.replace(MODEL, past=1.5, past_bytes_per_token=100)
    more = answers.activations(Limits(1), streams=False) - MODEL.activations(
        Limits(1), streams=False
    )
    assert more == 1.5 * PAST_BYTES


def test_a_backward_pass_adds_to_all() -> None:
    both = dataclasses.replace(MODEL, back=BACK)
    assert MODEL.unsampled(Limits(4), streams=True) == 0
    assert both.unsampled(Limits(4), streams=False) == 4 * 50 + 60
    assert both.activations(Limits(1), streams=False) == 300 * 1000 + 400 + 50 + 60


def test_states_of_a_wave_wait_until_it_has_gone_back() -> None:
    """Nine parts of 50 and 10 bytes; four workers have at least four of them at once."""
    both = dataclasses.replace(MODEL, back=BACK, hidden=100)
    worker = 300 * 1000 + 400
    for wave_bytes, together in ((1, 4), (299, 4), (300, 5), (60 * 9, 9), (WAVE_BYTES, 9)):
        limits = Limits(4, wave_bytes=wave_bytes)
        assert both.unsampled(limits, streams=True) == together * 60 + 60
        found = both.activations(limits, streams=True)
        assert found == worker * 4 + together * 60 + 60
        assert both.back is not None
        assert both.back.rehearsed(limits) == together * 10
    long = dataclasses.replace(both, hidden=WAVE_BYTES)  # more than its states on the way back
    assert long.activations(Limits(1), streams=True) == 256 * 1000 + 7 + 5 + WAVE_BYTES


def test_fetches() -> None:
    assert MODEL.fetches(Limits(1)) == 3
    assert MODEL.fetches(Limits(1, wave_bytes=WAVE_BYTES + 1)) == 3
    assert MODEL.fetches(Limits(1, wave_bytes=WAVE_BYTES - 1)) == 4
    assert dataclasses.replace(MODEL, hidden=0).fetches(Limits(1)) == 1


@pytest.mark.parametrize(("wave_bytes", "waves"), [(1, 5), (180, 3), (299, 3), (300, 2), (540, 1)])
def test_a_first_order_step_fetches_once_per_wave_and_direction(wave_bytes, waves) -> None:
    """Nine parts of 300 tokens take the time of 13.5 thousand, those of one token little."""
    both = dataclasses.replace(MODEL, back=BACK)
    found = both.fetches(Limits(2, wave_bytes=wave_bytes))
    assert found == pytest.approx(2 * waves * 1024 / 13_500)
    small = dataclasses.replace(MODEL, back=dataclasses.replace(BACK, tokens=1))
    assert small.fetches(Limits(2, wave_bytes=wave_bytes)) == 2 * waves


def test_waves_grow_into_spare_room() -> None:
    """Only as far as it makes fewer of them: five, then three, two and one for nine parts."""
    limits = Limits(2, wave_bytes=1)
    for spare, together in ((0, 2), (59, 2), (60, 3), (120, 3), (180, 5), (419, 5), (420, 9)):
        found = BACK.widened(limits, spare)
        assert BACK.held(found, streams=True) == together * 60
        assert BACK.held(found, streams=True) - BACK.held(limits, streams=True) <= spare
        assert found.chunk_tokens == limits.chunk_tokens
    assert BACK.widened(limits, 10**9) == Limits(2, wave_bytes=9 * 60)
    assert BACK.widened(Limits(20, wave_bytes=1), 10**9) == Limits(20, wave_bytes=1)


def test_rows_that_tell_all() -> None:
    limits = Limits(2)
    assert MODEL.telling_rows(limits, streams=False) == -(-2 * 2 * 256 // 20)
    assert MODEL.telling_rows(limits, streams=True) == -(-(1024 + WAVE_BYTES // 256) // 20)
    answers = dataclasses.replace(MODEL, past_bytes_per_token=1000)
    assert answers.telling_rows(limits, streams=False) == 2 * (1 + PAST_BYTES // 20_000)
    long = dataclasses.replace(MODEL, longest=10**6)
    assert long.telling_rows(limits, streams=False) == 2  # each is a chunk of its own
    assert dataclasses.replace(long, back=BACK).telling_rows(limits, streams=False) == 30
    short = dataclasses.replace(MODEL, longest=1, back=BACK)
    assert short.telling_rows(Limits(2, 16), streams=False) == 2 * 2 * 16


def test_states_that_wait() -> None:
    """Rows of 40 tokens with all copies, 256 bytes each."""
    assert MODEL.waiting(Limits(1), 60) == 3 * 40 * 256
    assert MODEL.waiting(Limits(1, wave_bytes=9), 60) == 9
    assert dataclasses.replace(MODEL, hidden=8).waiting(Limits(1), 60) == 8


def test_parts_of_last_tokens_hold_padded_prompts() -> None:
    """The prompts of 1 MiB per token: all fit where the longest has 4 tokens, 2 where it has 32.
    A batch is cut from its front, as the passes cut it."""
    back = dataclasses.replace(BACK, token_bytes=2**20)
    lengths = np.array([[3, 4, 2, 4, 1], [1, 8, 32, 4, 5]])
    assert back.part_tokens(lengths).tolist() == [[5 * 4, 0, 0, 0, 0], [2 * 8, 2 * 32, 5, 0, 0]]
    for row, size in zip(lengths, (6, 2), strict=True):
        assert answers_of_part(int(row.max()), 2**20, 5) == size


def test_rows_that_workers_take_at_once() -> None:
    """Two copies of rows of 20 and 200 tokens, in chunks of 256 by three workers."""
    longest = np.array([20, 200])
    assert MODEL.rows_at_once(Limits(3), longest).tolist() == [18, 3]
    both = dataclasses.replace(MODEL, back=BACK)
    assert both.rows_at_once(Limits(3), longest).tolist() == [3 * 12, 3]
    answers = dataclasses.replace(MODEL, past_bytes_per_token=PAST_BYTES // 2000)
    assert answers.rows_at_once(Limits(3), longest).tolist() == [3 * 100, 3 * 10]


def test_workers_with_unequal_parts() -> None:
    """Of 1000 bytes per token and 400 besides; or of what last tokens hold of their prompts."""
    both = dataclasses.replace(MODEL, back=BACK)
    assert both.unequal([5, 10, 3], 1) == 1
    assert both.unequal([5, 10, 3], 2) == (5400 + 10400) / 10400
    assert both.unequal([5, 10, 3], 9) == (3400 + 5400 + 10400) / 10400
    back = dataclasses.replace(BACK, token_bytes=100)
    answers = dataclasses.replace(MODEL, past=1.5, back=back)
    fixed = 400 + 300 * 1000
    assert answers.unequal([7, 2], 2) == (2 * fixed + 150 * 9) / (fixed + 150 * 7)


def test_the_formula_for_one_batch() -> None:
    back = dataclasses.replace(BACK, token_bytes=2**20)
    found = dataclasses.replace(MODEL, back=back).for_rows(4)
    assert (found.longest, found.back) == (4, dataclasses.replace(back, telling_rows=32))
    whole = dataclasses.replace(MODEL, back=BACK).for_rows(128).back
    assert whole == dataclasses.replace(
        BACK, tokens=256, telling_rows=4, kept=50 * 256 // 300, waiting=60 * 256 // 300
    )
    assert MODEL.for_rows(4) == dataclasses.replace(MODEL, longest=4)


def test_workers_that_have_rows() -> None:
    assert MODEL.busy_workers(Limits(8)) == 8
    assert dataclasses.replace(MODEL, rows=3).busy_workers(Limits(8)) == 3
    assert MODEL.back_workers(Limits(8)) == 0
    few = dataclasses.replace(MODEL, back=dataclasses.replace(BACK, parts=2))
    assert few.back_workers(Limits(8)) == 2
