"""SIGTERM and Ctrl-C while training."""

import signal

import pytest

from folds.signals import StopSignal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_recorded_and_the_second_acts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert stop.number == 0
        signal.raise_signal(number)
        assert stop.number == number
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        else:
            assert signal.getsignal(number) == signal.SIG_DFL
    assert signal.getsignal(number) == before
