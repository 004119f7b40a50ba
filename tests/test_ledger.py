"""The ledger: reading, concurrent writing, the table, and updates from Kaggle."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from kaggle_server import Fault, KaggleServer

from competition.command import Failure
from competition.kaggle.client import KaggleError
from submissions import ledger
from submissions.ledger import Entry

ENTRY = Entry(
    date="2026-11-22T10:00:00.123Z",
    run="unet",
    sha256="0" * 64,
    settings="0123456789ab",
    git="abcdef012345",
    cv_dice="0.99701",
    cv_iou="0.99404",
    folds="5",
    tta="identity+hflip",
    message='first, with "quotes"',
    ref="1000",
    status="PENDING",
    public="",
    private="",
    error="",
)
SCORED = replace(ENTRY, ref="1001", status="COMPLETE", public="0.99712", private="0.99693")


def test_saved_entries_are_read_and_replaced_by_ref(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.csv"
    assert ledger.read(path) == []
    ledger.save(path, [ENTRY])
    ledger.save(path, [SCORED])
    assert ledger.read(path) == [ENTRY, SCORED]
    failed = replace(ENTRY, status="ERROR", error="Evaluation failed")
    ledger.save(path, [failed])
    assert ledger.read(path) == [failed, SCORED]


def test_concurrent_commands_lose_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    refs = [str(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda ref: ledger.save(path, [replace(ENTRY, ref=ref)]), refs))
    assert sorted(entry.ref for entry in ledger.read(path)) == sorted(refs)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("when,run\n", "line 1: the header is 'when,run', not 'date,run,sha256,.*; repair or move the file"),
        (",".join(ledger.COLUMNS) + "\na,b\n", "line 2: 2 fields, not the 15 of date,run.*; repair or move the file"),
        ("\udcff", "is damaged"),
    ],
)
def test_a_damaged_ledger_is_reported_and_kept(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "ledger.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    before = path.read_bytes()
    with pytest.raises(Failure, match=reason):
        ledger.save(path, [ENTRY])
    assert path.read_bytes() == before


def test_a_ledger_that_a_spreadsheet_program_has_saved_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    ledger.save(path, [ENTRY])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert ledger.read(path) == [ENTRY]


def test_the_table_shows_cv_minus_score() -> None:
    entries = [replace(entry, message="first") for entry in (ENTRY, SCORED)]
    failed = replace(entries[0], ref="1002", status="ERROR", error="too few rows")
    assert ledger.table([*entries, failed]) == [
        "date (UTC)        run   message  CV       public   private  CV - score  status               ref",
        "2026-11-22 10:00  unet  first    0.99701                                PENDING              1000",
        "2026-11-22 10:00  unet  first    0.99701  0.99712  0.99693  +0.00008    COMPLETE             1001",
        "2026-11-22 10:00  unet  first    0.99701                                ERROR: too few rows  1002",
    ]
    assert ledger.difference(replace(SCORED, private="")) == "-0.00011", "of the public score if there is no other"
    assert ledger.difference(replace(SCORED, cv_dice="")) == ""


@pytest.mark.usefixtures("in_process")
def test_the_command_updates_pending_entries(
    tmp_path: Path, server: KaggleServer, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ledger.csv"
    ledger.main(["--ledger", str(path)])
    assert capsys.readouterr().out == f"no submissions in {path} yet; make one: make submit RUN=...\n"
    ledger.save(path, [ENTRY])
    server.faults = {"ListSubmissions": [Fault(404)]}
    with pytest.raises(KaggleError, match="404"):
        ledger.main(["--ledger", str(path)])
    assert "PENDING" in capsys.readouterr().out  # the ledger is printed nevertheless
    server.submissions = [{"ref": 1000, "description": "first", "listed": 0}]
    ledger.main(["--ledger", str(path)])
    assert "0.99701  0.99712  0.99693  +0.00008    COMPLETE  1000" in capsys.readouterr().out
    assert ledger.read(path) == [replace(SCORED, ref="1000")]
    ledger.main(["--ledger", str(path)])
    assert server.seen["ListSubmissions"] == 2  # no third one: nothing is pending
