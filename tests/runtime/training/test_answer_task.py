"""An answer task: nothing to answer unless it says so."""

from edgezo_runtime.training.answer_task import AnswerTask


def test_an_empty_task_asks_nothing() -> None:
    assert AnswerTask() == AnswerTask(questions=None, reward=None)
