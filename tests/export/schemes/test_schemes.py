"""Every scheme on tiny models, against torch and PEFT, and on its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgezo_export.export import ExportConfig, export_bundle
from edgezo_export.schemes import SCHEMES, make_scheme
from edgezo_runtime.app.tuner import Tuner
from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.config import TuneConfig
from edgezo_runtime.data.batches import make_batch
from edgezo_runtime.engine.engine import Engine, SharedParams
from edgezo_runtime.engine.first_order import FirstOrderGradient
from edgezo_runtime.engine.losses import example_losses
from edgezo_runtime.engine.pair_coding import code_matrices
from edgezo_runtime.errors import UsageError
from edgezo_runtime.methods.catalogue import METHODS, method_config
from tests.bundles.schemes import scheme_bundle
from tests.conftest import copied
from tests.export.torch_schemes import chosen_scores, closed_scores, peft_scores, run
from tests.runtime.tiny_sets import random_set

OPTIONS = {
    "lora": {"rank": 2, "targets": ("down_proj", "q_proj")},
    "lora-xs": {"rank": 3, "alpha": 6.0},
    "bitfit": {"biases": "all"},
    "tt": {"rank": 3, "bottleneck": 12},
    "prompt": {"virtual_tokens": 4},
    "prefix": {"virtual_tokens": 3},
}
BY_PEFT = ("lora-xs", "ia3", "prompt", "prefix")
SIZES = (9, 2, 14, 5, 21)
TOLERANCE = 1e-4  # float32 on both sides: the order of sums

PLAIN_EMBEDDINGS = (
    "cohere",
    "mistral",
    "olmo2",
    "phi",
    "phi3",
    "qwen2",
    "smollm3",
    "starcoder2",
)
slow = pytest.mark.slow
OTHERS = [kind for kind in SCHEMES if kind != "lora"]
PAIRS = [
    *(("llama", kind) for kind in OTHERS),
    *(("gpt2", kind) for kind in ("ia3", "bitfit", "prompt", "prefix")),
    *(
        pytest.param("gpt2", kind, marks=slow)
        for kind in ("lora-xs", "scales", "tt", "last-layers")
    ),
    *(pytest.param("llama-bias", kind, marks=slow) for kind in OTHERS),
    *(pytest.param("qwen3", kind, marks=slow) for kind in OTHERS),
    *(pytest.param("gpt_neox", kind, marks=slow) for kind in OTHERS if kind != "prefix"),
    *(pytest.param(name, "prompt", marks=slow) for name in PLAIN_EMBEDDINGS),
    *(pytest.param(name, "prefix", marks=slow) for name in ("qwen2", "olmo2", "opt")),
]


@pytest.fixture(scope="module")
def schemes(tmp_path_factory):
    """Tiny model, scheme and quantization -> a bundle; made once."""
    made: dict[tuple[str, str, str], Bundle] = {}

    def get(name: str, kind: str, quant: str = "fp32") -> Bundle:
        key = (name, kind, quant)
        if key not in made:
            place = tmp_path_factory.mktemp(kind) / "bundle"
            options = OPTIONS.get(kind, {})
            if name != "llama":
                options = {k: v for k, v in options.items() if k != "targets"}
            path = copied(place, scheme_bundle, name, kind, quant, options)
            made[key] = Bundle.open(path, verify=True)
        return made[key]

    return get


def batch_of(bundle, kind="labels", sizes=SIZES):
    examples = random_set(kind, sizes, bundle.manifest.tokenizer.pad_id)
    return make_batch(examples, range(len(sizes)))


def moved(bundle, size=0.2):
    """Trainables away from where they began."""
    generator = np.random.default_rng(1)
    values = bundle.trainables()
    for info in bundle.manifest.trainables:
        if info.trains:
            noise = generator.normal(0, size, info.shape)
            values[info.name] = (values[info.name] + noise).astype(np.float32)
    return values


def close(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


# --- what it computes ---


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*past_key_values.*:FutureWarning")
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_scores_are_those_of_torch(exported, schemes, tmp_path, name, kind):
    case, bundle = exported(name), schemes(name, kind)
    values, engine = moved(bundle), Engine(bundle)
    for scored in ("labels", "completion"):
        batch = batch_of(bundle, scored)
        front = bundle.manifest.scheme.tokens
        begun = engine.score(batch, SharedParams(bundle.trainables()))[0]
        close(begun, chosen_scores(run(case.model, batch, front), batch))
        found = engine.score(batch, SharedParams(values))[0]
        if kind in BY_PEFT:
            folder = tmp_path / scored
            folder.mkdir()
            expected = peft_scores(folder, case.folder, bundle, values, batch)
        else:
            expected = closed_scores(case.model, bundle, values, batch)
        close(found, expected)
        assert np.abs(found - begun).max() > 0.01


@pytest.mark.slow
def test_a_prompt_in_front_of_an_encoder(exported, schemes):
    case, bundle = exported("roberta"), schemes("roberta", "prompt")
    batch, engine = batch_of(bundle), Engine(bundle)
    begun = engine.score(batch, SharedParams(bundle.trainables()))[0]
    front = bundle.manifest.scheme.tokens
    close(begun, chosen_scores(run(case.model, batch, front), batch))
    found = engine.score(batch, SharedParams(moved(bundle)))[0]
    assert np.abs(found - begun).max() > 0.01


def fast_first(pairs, fast):
    """Parameters of a test; those whose kind is not in `fast` are slow."""
    return [pair if pair[1] in fast else pytest.param(*pair, marks=slow) for pair in pairs]


AS_IT_WAS = [kind for kind in OTHERS if kind not in ("last-layers", "prompt", "prefix")]
INT8 = [(name, kind) for name in ("llama", "gpt2") for kind in AS_IT_WAS]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), fast_first(INT8, {"ia3", "scales"}))
def test_initial_values_change_no_bit_of_int8(schemes, name, kind):
    plain, bundle = schemes(name, "lora", "int8"), schemes(name, kind, "int8")
    batch = batch_of(bundle)
    expected, found = (
        Engine(own).score(batch, SharedParams(own.trainables())) for own in (plain, bundle)
    )
    np.testing.assert_array_equal(found, expected)


# --- copies ---

QUANTS = [
    *(("fp32", kind) for kind in OTHERS),
    *fast_first([("int8", kind) for kind in OTHERS], {"scales", "prefix"}),
]


class RowCopies:
    """An antithetic pair for every row."""

    private = True

    def __init__(self, theta, active, rows):
        generator = np.random.default_rng(2)
        self._values = {}
        for name, value in theta.items():
            noise = generator.normal(0, 0.1, (rows, *value.shape)) * (name in active)
            pair = np.stack([value + noise, value - noise]).astype(np.float32)
            self._values[name] = pair if name in active else value

    def copies(self, name, rows):
        value = self._values[name]
        shared = name.endswith((".lora_A", ".lora_B", ".prompt_base"))
        return value[None] if shared else value[:, rows].reshape(-1, *value.shape[2:])


@pytest.mark.slow
@pytest.mark.parametrize(("quant", "kind"), QUANTS)
def test_copies_are_independent(schemes, quant, kind):
    """A row of many, each with parameters of its own, is the row alone with those."""
    bundle = schemes("llama", kind, quant)
    theta, batch = moved(bundle, 0.1), batch_of(bundle)
    active = {info.name for info in bundle.manifest.trainables if info.trains}
    params, code = RowCopies(theta, active, batch.num_rows), code_matrices([0.1, -0.1])
    one, *others = (
        Engine(bundle, chunk_tokens=size).score(batch, params, code) for size in (10_000, 64, 16)
    )
    for other in others:
        np.testing.assert_array_equal(one, other)
    assert np.abs(one[0] - one[1]).max() > 1e-3
    if quant == "int8":  # codes mix the groups, so a group alone rounds differently
        return
    for row in (0, 2):
        for group in range(2):
            own = {name: params.copies(name, np.array([row])) for name in theta}
            values = {name: copy[min(group, len(copy) - 1)] for name, copy in own.items()}
            alone = Engine(bundle).score(batch, SharedParams(values))
            np.testing.assert_array_equal(one[group, row], alone[0, row])


@pytest.mark.parametrize("kind", [k for k in OTHERS if not k.startswith(("last", "pr"))])
def test_answers_on_kept_prompts(schemes, tmp_path, kind):
    """The scope "answer": whole rows with a mask, and last tokens on kept keys and values."""
    from edgezo_runtime.engine.answer_states import KeyValueLayout
    from edgezo_runtime.engine.prefix_cache import AnswerCache

    bundle = schemes("llama", kind)
    values, batch, engine = moved(bundle), batch_of(bundle), Engine(bundle)
    params = SharedParams(values)
    whole = engine.score(batch, params, scope="answer")
    assert np.abs(whole - engine.score(batch, params)).max() > 1e-3
    layout = KeyValueLayout.of(bundle.manifest.graphs, 0)
    width = bundle.manifest.model.hidden_size
    cache = AnswerCache(tmp_path / "cache", batch.lengths, width, layout)
    kept = engine.score(batch, params, cache=cache, scope="answer")
    cache.close()
    assert np.abs(kept - whole).max() < 0.01 * np.abs(whole).max()  # float16


# --- tuning ---


@pytest.mark.parametrize(
    "kind",
    [k if k in ("prefix", "prompt") else pytest.param(k, marks=pytest.mark.slow) for k in OTHERS],
)
def test_written_logits_are_those_of_whole_passes(schemes, kind):
    from tests.runtime.written_texts import check_logits

    check_logits(schemes("llama", kind))
    check_logits(schemes("gpt2", kind))


STEPS = {
    "lora-xs": (0.3, 0.3),
    "ia3": (0.1, 0.3),
    "bitfit": (0.1, 0.3),
    "scales": (0.1, 0.3),
    "tt": (0.1, 0.1),
    "last-layers": (0.02, 0.1),
    "prompt": (0.1, 0.3),
    "prefix": (0.1, 0.3),
}
"""eps and learning rate."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_the_loss_falls(schemes, tmp_path, kind):
    bundle = schemes("llama", kind)
    examples = random_set("labels", (9, 5, 14, 8, 3, 12), bundle.manifest.tokenizer.pad_id)
    eps, lr = STEPS[kind]
    config = TuneConfig(
        steps=10, eps=eps, lr=lr, lr_schedule="constant", horizon=0, average=0.0, batch_size=6,
        blocks="all",
    )  # fmt: skip
    with Tuner.open(bundle, examples, config, tmp_path / "run") as tuner:
        before = tuner.evaluate(examples).loss
        for _ in tuner:
            pass
        assert tuner.evaluate(examples).loss < 0.98 * before


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEMES)
def test_gradients_are_the_slopes_of_losses(schemes, kind):
    """Along a random direction, against central differences."""
    bundle = schemes("llama", kind)
    assert not isinstance(bundle.manifest.backward, str), bundle.manifest.backward
    values, batch, engine = moved(bundle), batch_of(bundle), Engine(bundle)
    found = FirstOrderGradient(engine, 0).gradient(batch, values)
    generator = np.random.default_rng(3)
    z = {
        name: generator.normal(size=g.shape).astype(np.float32)
        for name, g in found.gradients.items()
    }
    assert set(z) == {info.name for info in bundle.manifest.trainables if info.trains}

    def loss(eps: float) -> float:
        there = values | {name: values[name] + np.float32(eps) * z[name] for name in z}
        return float(example_losses(batch, engine.score(batch, SharedParams(there))).mean())

    eps = 2e-3
    expected = (8 * (loss(eps) - loss(-eps)) - (loss(2 * eps) - loss(-2 * eps))) / (12 * eps)
    slope = sum(float((g * z[name]).sum()) for name, g in found.gradients.items())
    assert slope == pytest.approx(expected, rel=0.02, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEMES)
def test_streamed_blocks_change_no_bit_of_gradients(schemes, kind):
    """In parts of few tokens, whose waves are of one part, some, or all."""
    bundle = schemes("llama", kind)
    values, batch = moved(bundle), batch_of(bundle)
    expected = FirstOrderGradient(Engine(bundle), 0, 24).gradient(batch, values)
    for wave_bytes in (1, 30_000, 1 << 40):
        engine = Engine(bundle)
        engine.limits = dataclasses.replace(engine.limits, wave_bytes=wave_bytes, fetch_bytes=1)
        engine.streamed = frozenset(range(engine.num_blocks))
        found = FirstOrderGradient(engine, 0, 24).gradient(batch, values)
        np.testing.assert_array_equal(found.losses, expected.losses)
        for name, grad in expected.gradients.items():
            np.testing.assert_array_equal(found.gradients[name], grad)


def test_rows_as_long_as_a_model_takes_behind_virtual_tokens(schemes):
    """Pins a part that was padded to the limit of the rows, not of what goes through the blocks."""
    bundle = schemes("llama", "prompt")
    limit = bundle.manifest.model.max_seq
    batch, engine = batch_of(bundle, sizes=(limit, limit - 1)), Engine(bundle)
    values = moved(bundle)
    found = FirstOrderGradient(engine, 0).gradient(batch, values)
    expected = example_losses(batch, engine.score(batch, SharedParams(values)))[0]
    np.testing.assert_array_equal(found.losses, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCHEMES)
def test_the_loss_falls_by_measured_first_order_steps(schemes, tmp_path, kind):
    bundle = schemes("llama", kind)
    examples = random_set("labels", (9, 5, 14, 8, 3, 12), bundle.manifest.tokenizer.pad_id)
    config = TuneConfig(steps=20, max_time_s=0, batch_size=6, average=0.0)
    with Tuner.open(bundle, examples, config, tmp_path / "run") as tuner:
        assert tuner.run.rates.num_first_order == 2
        before = tuner.evaluate(examples).loss
        list(tuner)
        assert tuner.evaluate(examples).loss < 0.98 * before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        pytest.param(method, kind, marks=() if (row + column) % 9 == 0 else slow)
        for row, method in enumerate(name for name, made in METHODS.items() if not made.feedback)
        for column, kind in enumerate(SCHEMES)
    ],
)
def test_every_method_trains_every_scheme(schemes, tmp_path, method, kind):
    bundle = schemes("llama", kind)
    examples = random_set("labels", (9, 5, 14, 8), bundle.manifest.tokenizer.pad_id)
    own = {"directions": "private"} if method == "rloo" else {}
    config = method_config(
        method, steps=2, max_time_s=0, batch_size=4, lr=1e-3, eps=1e-2, blocks="all", **own
    )
    initial = bundle.trainables()
    with Tuner.open(bundle, examples, config, tmp_path / "run") as tuner:
        losses = [report.loss for report in tuner]
        changed = [n for n, value in tuner.run.state.theta.items() if (value != initial[n]).any()]
    assert np.isfinite(losses).all()
    assert changed


# --- what is refused ---


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("ia3", {"rank": 2}, "`rank` does not go with `trainable` ia3"),
        ("prefix", {"lora_train": "ab"}, "`lora_train` does not go .* option of lora$"),
        ("ia3", {"targets": ("x",)}, "`targets` does not go .* lora, lora-xs, scales"),
        ("prompt", {"tokens": (1,)}, "`tokens` does not go"),
        ("lora-xs", {"rank": 0}, "`rank` 0"),
        ("tt", {"bottleneck": 0}, "`bottleneck` 0"),
        ("last-layers", {"last_layers": 0}, "`last_layers` 0"),
        ("dora", {}, "`trainable` dora: expected one of lora,"),
    ],
)
def test_options_that_do_not_go_together(kind, options, message):
    with pytest.raises(UsageError, match=message):
        make_scheme(kind, options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "options", "message"),
    [
        ("llama", "last-layers", {"last_layers": 3}, "`last_layers` 3: the model has 2 blocks"),
        ("llama", "lora-xs", {"rank": 65}, "`rank` 65"),
        ("llama", "scales", {"targets": ("query",)}, "`targets` query"),
        ("llama", "prompt", {"virtual_tokens": 63}, "`virtual_tokens` 63: must be 1 to 62"),
        ("roberta", "prefix", {}, "`trainable` prefix: roberta.encoder.layer.0 .* use .* prompt"),
    ],
)
def test_models_that_a_scheme_does_not_go_with(exported, tmp_path, name, kind, options, message):
    config = ExportConfig(quant="fp32", scheme=make_scheme(kind, options))
    with pytest.raises(UsageError, match=message):
        export_bundle(str(exported(name).folder), tmp_path / "bundle", config)


@pytest.mark.parametrize("name", ["llama", "gpt2", pytest.param("gpt_neox", marks=slow)])
def test_places_of_ia3_are_those_of_peft(exported, schemes, name):
    constants = pytest.importorskip("peft.utils.constants")
    case, infos = exported(name), schemes(name, "ia3").manifest.trainables
    architecture = case.model.config.model_type
    for role, wanted in (
        (None, constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING),
        ("input_gain", constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING),
    ):
        ends = tuple(f".{end}" for end in wanted[architecture])
        expected = {path for path, _ in case.model.named_modules() if path.endswith(ends)}
        assert {info.module for info in infos if role in (None, info.role)} == expected


def test_every_scheme_has_its_name():
    for name, scheme in SCHEMES.items():
        assert scheme.kind == name
        assert dataclasses.is_dataclass(scheme)
