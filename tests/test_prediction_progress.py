"""The progress of a prediction."""

import io
from contextlib import closing

import pytest
from tqdm import tqdm

from inference import progress
from inference.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; a test changes it."""
    now = [100.0]
    monkeypatch.setattr("inference.progress.time.monotonic", lambda: now[0])
    return now


def test_without_a_terminal_there_is_a_line_every_half_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten seconds an image; four of twelve images were done before."""
    with closing(Progress("predict", 12, lambda: 4)) as shown:
        for _ in shown.counted(range(8)):
            clock[0] += 10
        shown.finished, shown.current = 12, 0
        shown.print_end()
    assert capsys.readouterr().out.splitlines() == [
        "predict: 7 of 12 images, 0.1 images/s, 0:50 left",
        "predict: 10 of 12 images, 0.1 images/s, 0:20 left",
        "predict: 8 images in 1:20, 0.1 images/s (4 of 12 were done before)",
    ]


def test_what_others_have_finished_counts(clock: list[float]) -> None:
    finished = [0]
    with closing(Progress("predict", 100, lambda: finished[0])) as shown:
        images = shown.counted(range(3))
        next(images)
        next(images)
        assert shown.done == 1
        finished[0] = 32
        next(images)
        assert shown.done == 2, "not counted again yet"
        clock[0] += 2
        shown.show()
        assert shown.done == 34
        finished[0] = 35
        shown.saved()
        assert shown.done == 35, "the images of this process are saved"


def test_a_terminal_shows_a_bar_that_moves_with_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(progress, "tqdm", lambda **options: tqdm(**options, file=screen, mininterval=0))
    with closing(Progress("predict", 3)) as shown:
        for _ in shown.counted(range(3)):
            pass
    for number in (1, 2, 3):
        assert f"{number}/3 [" in screen.getvalue()
    assert "image/s" in screen.getvalue()


def test_a_finished_prediction_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(Progress("predict", 12, lambda: 12)) as shown:
        shown.print_end()
    assert capsys.readouterr().out == "predict: all 12 images were done before\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.7, "1:00"), (247, "4:07"), (3723, "1:02:03")])
def test_a_duration_in_minutes(seconds: float, text: str) -> None:
    assert duration(seconds) == text
