"""The progress of a long command."""

import pytest

from inference.cutouts.progress import Progress


def test_lines_elsewhere_and_a_redrawn_line_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.cutouts.progress.SHOWN_EVERY", (0.0, 0.0))
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        progress = Progress(2000)
        progress.add()
        progress.add(skipped=True)
        progress.close()
        shown = capsys.readouterr()
        found, other = (shown.err, shown.out) if terminal else (shown.out, shown.err)
        assert found.count("\r") == (4 if terminal else 0)
        assert "cutout: 1 of 2,000 photos, " in found
        assert ", 1 skipped" in found
        assert not other
