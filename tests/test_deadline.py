"""HOURS: when a command stops."""

import time
from argparse import ArgumentParser

import pytest

from competition.command import Failure
from competition.deadline import STARTED, Deadline, add_deadline_argument


@pytest.fixture(autouse=True)
def without_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STARTED, raising=False)


def test_hours_count_from_now_or_from_the_time_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Deadline().leaves(1e9)
    assert Deadline(1).leaves(3590)
    assert not Deadline(1).leaves(3601)
    monkeypatch.setenv(STARTED, str(time.time() - 3000))
    assert Deadline(1).leaves(590)
    assert not Deadline(1).leaves(601)
    assert not Deadline(0.5).leaves()
    monkeypatch.setenv(STARTED, "noon")
    with pytest.raises(Failure, match="CARVANA_STARTED=noon is not a time in seconds since 1970"):
        Deadline(1)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "11h", ""])
def test_hours_are_a_number_above_0(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    add_deadline_argument(parser)
    assert str(Deadline(parser.parse_args(["--hours", "11"]).hours)) == "HOURS=11"
    with pytest.raises(SystemExit):
        parser.parse_args([f"--hours={text}"])
    assert "is not a number of hours above 0, such as 11 or 0.5" in capsys.readouterr().err
