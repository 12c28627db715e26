"""Tied parameters that have values of their own in the checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.sources import tied_tensors
from edgezo_export.sources.model_source import open_source
from edgezo_export.sources.tied_tensors import separate_tensors
from edgezo_runtime.errors import EdgezoError
from tests.export.planned_weights import Arrays
from tests.export.source_models import tiny_llama

TIED = {"head": "embed"}
EMBED = np.arange(12, dtype=np.float32).reshape(6, 2)


def separate(**arrays):
    spelt = {"head": ["head", "old.head"], "embed": ["embed"]}

    def stored(name):
        return [spelling for spelling in spelt[name] if spelling in names]

    names = {name.replace("_", "."): array for name, array in arrays.items()}
    return separate_tensors(TIED, stored, Arrays(names))


def test_values_decide(monkeypatch):
    other = EMBED.copy()
    other[5, 1] += 1
    for chunk in (2 << 20, 4):  # all rows at once, and two rows at a time
        monkeypatch.setattr(tied_tensors, "_CHUNK", chunk)
        assert separate(embed=EMBED, head=EMBED.copy()) == {}
        assert separate(embed=EMBED, head=other) == {"head": ("head", "embed")}
    assert separate(embed=EMBED) == {}
    assert separate(head=EMBED) == {}
    assert separate(embed=EMBED, old_head=other) == {"head": ("old.head", "embed")}


def test_a_head_of_another_shape_is_refused():
    with pytest.raises(EdgezoError, match=r"'head' is \(5, 2\), 'embed' is \(6, 2\), and the con"):
        separate(embed=EMBED, head=EMBED[:5])


@pytest.mark.parametrize("other", [EMBED + 1, EMBED[:5]], ids=["values", "shape"])
def test_two_heads_are_refused(other):
    with pytest.raises(EdgezoError, match=r"'head' and 'old\.head' differ.* stand for 'head'"):
        separate(embed=EMBED, head=EMBED, old_head=other)
    assert separate(embed=EMBED, head=EMBED, old_head=EMBED) == {}


def test_a_model_without_the_head_that_its_config_wants(tmp_path):
    model = tiny_llama(tie_word_embeddings=True)
    model.config.tie_word_embeddings = False
    model.base_model.save_pretrained(tmp_path)
    source = open_source(str(tmp_path))
    with pytest.raises(EdgezoError, match=r"no tensor 'lm_head\.weight'.*says tie_word_embeddings"):
        source.resolve("lm_head.weight")
    with pytest.raises(EdgezoError, match=r"no tensor 'lm_head\.bias' in the .* in [^;]*$"):
        source.resolve("lm_head.bias")
