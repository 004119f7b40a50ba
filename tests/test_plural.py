import pytest

from competition.plural import counted


@pytest.mark.parametrize(
    ("count", "noun", "plural", "text"),
    [
        (0, "car", None, "0 cars"),
        (1, "car", None, "1 car"),
        (2, "training photo", None, "2 training photos"),
        (5088, "photo", None, "5,088 photos"),
        (1, "batch", "batches", "1 batch"),
        (3, "batch", "batches", "3 batches"),
    ],
)
def test_counted(count: int, noun: str, plural: str | None, text: str) -> None:
    assert counted(count, noun, plural) == text
