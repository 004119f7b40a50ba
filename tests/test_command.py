import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from competition.command import Failure, one_line, parser
from competition.startup import INTERRUPTION

ROOT = Path(__file__).parent.parent


def run(tmp_path: Path, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this body in a process."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    script = tmp_path / "some_command.py"
    script.write_text(
        "import os, signal, sys\nfrom competition.command import *\n"
        f"def main():\n    parser('Something.').parse_args()\n{lines}\n"
        "run_command(main)\n"
    )
    return subprocess.run(
        [sys.executable, script, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(("arguments", "start"), [([], "done\n"), (["--help"], "usage: ")])
def test_success_and_help(tmp_path: Path, arguments: list[str], start: str) -> None:
    done = run(tmp_path, "print('done')", *arguments)
    assert (done.returncode, done.stdout.startswith(start), done.stderr) == (0, True, "")
    assert ("--debug" in done.stdout) == (arguments == ["--help"])


@pytest.mark.parametrize(("more", "status"), [("", 0), ("raise Failure('no')", 1)])
def test_no_cycles_are_looked_for_at_the_end(tmp_path: Path, more: str, status: int) -> None:
    done = run(tmp_path, f"import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n{more}")
    assert (done.returncode, done.stdout) == (status, "True\n")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("raise Failure('x.csv line 3: no;\\n  mend it')", "error: x.csv line 3: no; mend it\n"),
        ("open('/nowhere/x.csv')", "error: /nowhere/x.csv: no such file or folder\n"),
        ("raise OSError(28, 'No space left', 'x')", "error: x: no space left on the disk; free some space and run"),
        ("raise Failure(os.fsdecode(b'K\\xe4fer \\x1b[2J'))", "error: K\\xe4fer \\x1b[2J\n"),
        ("open(os.fsdecode(b'/K\\xe4fer/x'))", "error: /K\\xe4fer/x: no such file or folder\n"),
        ("raise ValueError('a\\nb')", "error: ValueError: a b (unexpected error; --debug shows the traceback)\n"),
    ],
)
def test_an_error_is_one_line_and_status_1(tmp_path: Path, body: str, line: str) -> None:
    done = run(tmp_path, body)
    assert done.returncode == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(("name", "value"), [("PYTHONIOENCODING", "ascii"), ("LC_ALL", "C")])
def test_everything_can_be_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    done = run(tmp_path, "print('K\\xe4fer', os.fsdecode(b'\\xe4'))\nraise Failure('K\\xe4fer')")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stdout in ("K\\xe4fer \\udce4\n", "K\xe4fer \\udce4\n")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = run(tmp_path, "raise Failure('no')", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "in main" in done.stderr


@pytest.mark.parametrize("arguments", [["--nonsense"], ["more"], ["--deb"]])
def test_a_usage_error_is_status_2(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, "pass", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("; --help lists the options\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "status", "line"),
    [
        ("os.kill(os.getpid(), signal.SIGINT)\nsignal.pause()", 128 + signal.SIGINT, INTERRUPTION),
        ("raise Terminated('saved; run it again')", 128 + signal.SIGTERM, "saved; run it again"),
        ("raise Terminated('saved; run it again', signal.SIGINT)", 128 + signal.SIGINT, "saved; run it again"),
        ("raise OutOfTime('saved; run it again')", 124, "saved; run it again"),
    ],
    ids=["ctrl-c", "terminated after saving", "ctrl-c after saving", "out of time"],
)
def test_exit_status_of_signals(tmp_path: Path, body: str, status: int, line: str) -> None:
    done = run(tmp_path, body)
    assert (done.returncode, done.stderr.strip()) == (status, line)


@pytest.mark.parametrize("body", ["print('x' * 10**6)", "print('short')"])
def test_closed_output_gives_no_traceback(tmp_path: Path, body: str) -> None:
    script = run(tmp_path, body).args[1]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},  # so that the short one waits in a buffer
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_common_os_errors_say_what_to_do(code: int) -> None:
    line = one_line(OSError(code, "raw", "some/file"))
    assert line.startswith("some/file: ") and ";" in line and "raw" not in line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EISDIR, "Is a directory", "x"), "x: Is a directory"),
        (OSError("two\nlines"), "two lines"),
        (Failure("a  b\nc"), "a b c"),
    ],
)
def test_one_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


DAMAGED = "x.jpg is damaged (Failure): copy it again"


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Failure, DAMAGED),
        (OSError, DAMAGED),
        (ValueError, f"ValueError: {DAMAGED} (unexpected error; --debug shows the traceback)"),
    ],
)
def test_error_of_a_data_loader_worker(kind: type[Exception], line: str) -> None:
    from torch._utils import ExceptionWrapper

    def raised() -> ExceptionWrapper:
        try:
            try:
                raise KeyError("the cause")
            except KeyError as cause:
                raise kind("x.jpg is damaged\n(Failure): copy it again") from cause
        except kind:
            return ExceptionWrapper(where="in DataLoader worker process 0")

    with pytest.raises(kind, match="Traceback") as again:
        raised().reraise()
    assert one_line(again.value) == line


@pytest.mark.parametrize("module", ["inference.report.__main__", "inference.report"])
def test_help_names_the_command_of_a_module_or_package(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    main = SimpleNamespace(__spec__=SimpleNamespace(name=module))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert parser("x").format_usage().startswith("usage: python -m inference.report [-h]")
