"""The class and the sizes that follow from a config."""

from __future__ import annotations

import pytest
import transformers

from edgezo_export.errors import UnsupportedModelError
from edgezo_export.sources.architecture import KNOWN, model_class, model_sizes
from tests.export.tiny_models import HIDDEN, MAX_SEQ, TINY, VOCAB


def test_known_architectures_are_those_tested():
    assert sorted({spec.make().config.model_type for spec in TINY.values()}) == sorted(KNOWN)


def test_an_architecture_without_a_head():
    with pytest.raises(UnsupportedModelError, match=r"'t5' has no causal-lm .*: bert, .* llama,"):
        model_class(transformers.T5Config(), "auto")


def test_the_other_task_is_named():
    with pytest.raises(UnsupportedModelError, match=r"it has one for `task` masked-lm"):
        model_class(transformers.DistilBertConfig(), "causal-lm")


@pytest.mark.parametrize("name", ["llama", "gpt2", "roberta", "distilbert"])
def test_sizes_are_found_whatever_their_names(name):
    config = TINY[name].make().config
    offset = config.pad_token_id + 1 if name == "roberta" else 0  # positions after the padding
    expected = {"hidden_size": HIDDEN, "vocab_size": VOCAB, "max_seq": MAX_SEQ - offset}
    assert model_sizes(config) == expected


def test_a_config_without_sizes():
    with pytest.raises(UnsupportedModelError, match="'no-such': config has no hidden_size"):
        model_sizes(type("Odd", (transformers.PretrainedConfig,), {"model_type": "no-such"})())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_labels": 1}, "the head has one output"),
        ({"num_labels": 1, "problem_type": "regression"}, "problem_type regression"),
        ({"num_labels": 3, "problem_type": "regression"}, "problem_type regression"),
        ({"problem_type": "multi_label_classification"}, "problem_type multi_label"),
    ],
)
@pytest.mark.parametrize("task", ["auto", "classification"])
def test_heads_that_choose_no_class(options, reason, task):
    config = transformers.BertConfig(architectures=["BertForSequenceClassification"], **options)
    with pytest.raises(UnsupportedModelError, match=reason):
        model_class(config, task)
    assert model_class(config, "masked-lm")[1] == "masked-lm"


@pytest.mark.parametrize("kind", [None, "single_label_classification"])
def test_heads_of_classes(kind):
    config = transformers.BertConfig(num_labels=3, problem_type=kind)
    assert model_class(config, "classification")[0] is transformers.BertForSequenceClassification
