from __future__ import annotations

import pytest

from edgezo_runtime.bundle.bundle import Bundle
from edgezo_runtime.data.example_set import ExampleSet
from tests.runtime.tiny_sets import random_set
from tests.runtime.tuner_runs import SIZES


@pytest.fixture
def examples(bundle: Bundle) -> ExampleSet:
    """Eight rows of random tokens, of three classes in turn."""
    return random_set("labels", SIZES, bundle.manifest.tokenizer.pad_id)
