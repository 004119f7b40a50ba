"""Predictions in shards."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
import torch

from competition.command import OutOfTime
from competition.deadline import Deadline
from competition.files import claimed
from competition.photo import Photo
from competition.settings.schema import Inference
from inference.shards import Count, ShardedJob, facts_of, key_of, run_shards

PHOTOS = [Photo(f"{number}.jpg", "car", number, Path(f"{number}.jpg")) for number in range(10)]
LOCK = ".00000-of-00003.csv.gz.lock"


def write_names(shard: Sequence[Photo], file: Path, count: Count[Photo] = iter) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(" ".join(photo.img for photo in count(shard)))


@pytest.fixture
def done() -> list[str]:
    """The first photo of each shard that ``work`` has done."""
    return []


@pytest.fixture
def work(done: list[str]) -> Callable[[Sequence[Photo], Path], None]:
    def write(shard: Sequence[Photo], file: Path, count: Count[Photo]) -> None:
        done.append(shard[0].img)
        write_names(shard, file, count)

    return write


def test_a_restart_does_only_what_is_missing(tmp_path: Path, work: Callable[..., None], done: list[str]) -> None:
    def fail_in_the_second(shard: Sequence[Photo], file: Path, count: Count[Photo]) -> None:
        if shard[0].img == "4.jpg":
            raise RuntimeError("killed")
        write_names(shard, file, count)

    with pytest.raises(RuntimeError):
        run_shards(tmp_path, PHOTOS, 4, fail_in_the_second, "test")
    files = run_shards(tmp_path, PHOTOS, 4, work, "test")
    assert done == ["4.jpg", "8.jpg"]
    assert " ".join(file.read_text() for file in files) == " ".join(photo.img for photo in PHOTOS)
    assert [len(file.read_text().split()) for file in files] == [4, 4, 2]


def test_a_shard_of_a_killed_process_is_done_by_another(tmp_path: Path, done: list[str]) -> None:
    """The other process holds the lock, and dies without finishing while this one does the last shard."""
    other = ExitStack()
    assert other.enter_context(claimed(tmp_path / LOCK, wait=False))

    def work(shard: Sequence[Photo], file: Path, count: Count[Photo]) -> None:
        done.append(shard[0].img)
        write_names(shard, file, count)
        if shard[0].img == "8.jpg":
            other.close()

    run_shards(tmp_path, PHOTOS, 4, work, "test")
    assert done == ["4.jpg", "8.jpg", "0.jpg"]


def test_a_shard_that_another_process_finishes_is_waited_for(
    tmp_path: Path, work: Callable[..., None], done: list[str]
) -> None:
    other = ExitStack()
    assert other.enter_context(claimed(tmp_path / LOCK, wait=False))

    def finish() -> None:
        write_names(PHOTOS[:4], tmp_path / "00000-of-00003.csv.gz")
        other.close()

    later = Timer(0.1, finish)
    later.start()
    run_shards(tmp_path, PHOTOS, 4, work, "test")
    later.join()
    assert done == ["4.jpg", "8.jpg"]


def test_a_deadline_keeps_whole_shards(
    tmp_path: Path, work: Callable[..., None], done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second shard is not begun: less time is left than the first one took, 30 seconds."""
    monkeypatch.setattr("inference.shards.time.monotonic", lambda: 100.0 + 30 * len(done))
    monkeypatch.setattr(Deadline, "leaves", lambda _, seconds: seconds < 20)
    with pytest.raises(OutOfTime) as stop:
        run_shards(tmp_path, PHOTOS, 4, work, "predict", deadline=Deadline(11))
    line = "stopped by HOURS=11; predict: 4 of 10 images are done, and the same command resumes there"
    assert str(stop.value) == line
    monkeypatch.undo()
    run_shards(tmp_path, PHOTOS, 4, work, "predict", deadline=Deadline(11))
    assert done == ["0.jpg", "4.jpg", "8.jpg"]


def test_a_deadline_ends_no_complete_prediction(tmp_path: Path, work: Callable[..., None]) -> None:
    files = run_shards(tmp_path, PHOTOS, 4, work, "predict")
    assert run_shards(tmp_path, PHOTOS, 4, work, "predict", deadline=Deadline(1e-9)) == files


def test_a_key_depends_on_all_facts_and_not_on_their_order() -> None:
    assert key_of(a=1, b=[2, 3]) == key_of(b=[2, 3], a=1)
    assert len({key_of(a=1, b=[2, 3]), key_of(a=1, b=[3, 2]), key_of(a=2, b=[2, 3])}) == 3


def test_every_inference_setting_is_a_fact_unless_named_here() -> None:
    """``readers`` only changes the speed; the others enter a key as the choice that follows from them."""
    elsewhere = {"readers", "threshold", "member_weights", "pseudo"}
    others = (
        Inference(tta=["hflip"], precision="fp32", compile=True, batch_size=3, shard=5),
        Inference(engine="onnxruntime"),
    )
    facts, *changed = (facts_of(how, torch.device("cpu")) for how in (Inference(precision="bf16"), *others))
    named = {name for each in changed for name in facts if facts[name] != each[name]}
    assert named == Inference.model_fields.keys() - elsewhere


def test_shards_of_other_calls_are_kept_and_reported_until_a_job_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(batch_size: int) -> ShardedJob:
        facts = {"batch_size": batch_size, "checkpoints": {0: "a"}}
        return ShardedJob(tmp_path / "all", facts, {}, settings=Inference(), device=torch.device("cpu"))

    old = job(8)
    job(2)
    assert capsys.readouterr().out == "", "no shard is finished yet"
    (file,) = run_shards(old.folder / "fold0", PHOTOS, 10, write_names, "test")
    capsys.readouterr()
    job(8)
    assert capsys.readouterr().out == "", "its shards are reused"
    last = job(4)
    line = f"note: images finished with another batch_size are not reused; see {old.folder / 'facts.json'}\n"
    assert capsys.readouterr().out == line
    assert file.is_file()
    last.remove()
    last.remove()
    assert not (tmp_path / "all").exists()
