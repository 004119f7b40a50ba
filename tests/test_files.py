import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import full_disk

from competition.command import Failure
from competition.files import claimed, held, read_json, replacing, write_json, write_text

ROOT = Path(__file__).parent.parent


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_new_file_and_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a" / "x.txt"
    write_text(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()
    assert names(path.parent) == ["x.txt"]


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # a rename across file systems would copy
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["x.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), Failure("no")])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_json_is_readable_and_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    content = {"dice": 0.1 + 0.2, "folds": [{"fold": 0}]}
    write_json(path, content)
    text = path.read_text()
    assert json.loads(text) == content
    assert text.endswith("}\n")
    assert text.count("\n") > 3
    with pytest.raises(TypeError):
        write_json(path, {"path": path})
    assert path.read_text() == text


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[" * 100_000, b"\xff\xfe{", b'{"a": ' + b"9" * 5000 + b"}"])
def test_damaged_json_is_a_failure(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(Failure, match=f"^{path} is not JSON: .*; write it again$"):
        read_json(path, "write it again")
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(path) == {"a": 1}


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    writer = python(
        "import sys, time; from pathlib import Path; from competition.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    file = temporary.open('w'); file.write('new' * 100_000); file.flush()\n"
        "    print('half', flush=True); time.sleep(600)",
        path,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate(timeout=60)
    assert path.read_text() == "old"
    write_text(path, "new")  # the temporary file of the killed process is overwritten
    assert path.read_text() == "new"


def test_a_lock_ends_with_its_process_although_a_worker_lives(tmp_path: Path) -> None:
    """Workers of a loader are forked while their trainer holds the lock of the fold."""
    holder = python(
        "import os, sys, time; from pathlib import Path; from competition.files import held\n"
        "with held(Path(sys.argv[1])):\n"
        "    worker = os.fork()\n"
        "    if worker: print(worker, flush=True)\n"
        "    time.sleep(600)",
        tmp_path / "lock",
    )
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    with claimed(tmp_path / "lock", wait=False) as mine:
        assert not mine, "the worker that closes its copy does not free the lock"
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=60)
    try:
        with claimed(tmp_path / "lock", wait=False) as mine:
            assert mine
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()


@pytest.mark.parametrize("delay", [0.003, 0.03])
def test_the_file_is_whole_after_a_kill_at_any_time(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "x.txt"
    size = 200_000
    writer = python(
        "import sys, itertools; from pathlib import Path; from competition.files import write_text\n"
        "for n in itertools.count():\n"
        "    write_text(Path(sys.argv[1]), str(n % 10) * int(sys.argv[2])); n or print('begun', flush=True)",
        path,
        size,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begun\n"
    signal.sigtimedwait([], delay)  # a pause; the test does not depend on its exact length
    writer.kill()
    writer.communicate(timeout=60)
    text = path.read_text()
    assert len(text) == size
    assert len(set(text)) == 1


def test_a_file_that_cannot_grow_is_a_failure_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with full_disk(), pytest.raises(Failure, match=f"^cannot write {path}: File too large$"):
        write_text(path, "new" * 10_000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_failure_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with (
        pytest.raises(Failure, match=f"cannot write {path}: no space left on the disk; free some"),
        replacing(path) as temporary,
    ):
        temporary.write_text("half")
        Path("/dev/full").write_text("a disk without space")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["x.txt"]


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match=r"cannot write .*file/x\.txt: "):
        write_text(tmp_path / "file" / "x.txt", "new")
    with pytest.raises(Failure, match=r"cannot write .*file/\.lock: "), held(tmp_path / "file" / ".lock"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_a_failure(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Failure, match="permission denied; check who owns it"):
        write_text(tmp_path / "x.txt", "new")
    tmp_path.chmod(0o700)


def test_a_lock_is_free_after_its_holder_was_killed(tmp_path: Path) -> None:
    lock = tmp_path / "new folder" / ".lock"
    holder = python(
        "import sys, time; from pathlib import Path; from competition.files import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)",
        lock,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Failure, match=rf"another one is busy \(it holds {lock}\)"), held(lock, "another one is busy"):
        pass
    with claimed(lock, wait=False) as mine:
        assert not mine
    holder.kill()
    holder.communicate(timeout=60)
    with claimed(lock, wait=False) as mine:
        assert mine
    with held(lock):
        assert lock.read_bytes() == b""
