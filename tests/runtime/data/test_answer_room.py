"""Room for a prompt and an answer."""

import pytest

from edgezo_runtime.data.answer_room import answer_room
from edgezo_runtime.errors import UsageError


def test_a_prompt_takes_what_the_answer_leaves() -> None:
    assert answer_room(64, 60) == 4
    assert answer_room(64, 63) == 1


@pytest.mark.parametrize("new", [64, 65, 1000])
def test_no_room_is_refused(new: int) -> None:
    with pytest.raises(UsageError, match=rf"`max_new_tokens` {new}: the model takes 64 in all"):
        answer_room(64, new)
