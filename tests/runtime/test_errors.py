"""Errors: the tree in the docstring is the tree in the code."""

import inspect
import re

import pytest

from edgezo_runtime import errors
from edgezo_runtime.errors import DataError, EdgezoError, UsageError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, EdgezoError)
}


def test_the_drawn_tree_names_every_class_and_its_exit_code() -> None:
    line = r"^    (?:│   )?(?:[├└]── )?(\w+Error) +(\d+) "
    drawn = re.findall(line, errors.__doc__ or "", re.MULTILINE)
    assert {name: int(code) for name, code in drawn} == {
        name: value.exit_code for name, value in CLASSES.items()
    }


def test_exit_codes_are_those_of_the_command_line() -> None:
    codes = {name: value.exit_code for name, value in CLASSES.items() if value.exit_code != 1}
    assert codes == {
        "UsageError": 2,
        "RewardError": 2,
        "NoBackwardGraphsError": 2,
        "DoesNotFitError": 3,
        "BudgetStopError": 4,
        "DeviceLostError": 4,
        "DataError": 5,
        "MissingFieldError": 5,
        "InterruptedRunError": 130,
    }


@pytest.mark.parametrize("kind", [UsageError, DataError])
def test_wrong_input_is_a_value_error_too(kind: type[EdgezoError]) -> None:
    with pytest.raises(ValueError, match="wrong"):
        raise kind("wrong")
