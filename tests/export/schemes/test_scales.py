"""Gains of the products of frozen weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgezo_export.schemes.scales import Scales
from edgezo_runtime.errors import UsageError
from tests.export.scheme_places import LINEAR, NORM, applied, draw, facts, initial


def test_every_output_channel_has_a_gain_before_the_bias():
    (edit,) = Scales().resolve(facts()).edits(LINEAR)
    assert edit.stage == "product"
    np.testing.assert_array_equal(initial(edit)[0], np.ones(6, np.float32))
    y, gain = draw(2, 3, 6), draw(2, 6)
    np.testing.assert_allclose(applied(edit, y, y, [gain]), y * gain[:, None], atol=1e-6)


def test_targets_limit_the_layers():
    assert Scales(("k_proj",)).edits(LINEAR) == Scales().edits(NORM) == ()
    with pytest.raises(UsageError, match="`targets` odd"):
        Scales(("odd",)).resolve(facts())
