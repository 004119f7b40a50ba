"""A long prediction in parts."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
import torch

from competition.data_folder import Photo
from competition.files import claimed
from competition.settings.schema import Inference
from inference.shards import facts_of, key_of, parts_of, remove_parts, run_shards

PHOTOS = [Photo(f"{number}.jpg", "car", number, Path(f"{number}.jpg")) for number in range(10)]


def write_names(part: Sequence[Photo], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(" ".join(photo.img for photo in part))


def test_every_photo_is_in_one_part_in_order(tmp_path: Path) -> None:
    files = run_shards(tmp_path, PHOTOS, 4, write_names, "test")
    assert " ".join(file.read_text() for file in files) == " ".join(photo.img for photo in PHOTOS)
    assert [len(file.read_text().split()) for file in files] == [4, 4, 2]


def test_a_restart_does_only_what_is_missing(tmp_path: Path) -> None:
    def fail_in_the_second(part: Sequence[Photo], file: Path) -> None:
        if part[0].img == "4.jpg":
            raise RuntimeError("killed")
        write_names(part, file)

    with pytest.raises(RuntimeError):
        run_shards(tmp_path, PHOTOS, 4, fail_in_the_second, "test")
    done: list[str] = []

    def note(part: Sequence[Photo], file: Path) -> None:
        done.append(part[0].img)
        write_names(part, file)

    run_shards(tmp_path, PHOTOS, 4, note, "test")
    assert done == ["4.jpg", "8.jpg"]


def test_a_part_that_another_process_holds_is_left_to_it_and_then_waited_for(tmp_path: Path) -> None:
    """It dies without finishing: its lock is free, and the part is done here."""
    done: list[str] = []
    other = ExitStack()
    assert other.enter_context(claimed(tmp_path / ".00000-of-00003.csv.gz.lock", wait=False))

    def note(part: Sequence[Photo], file: Path) -> None:
        done.append(part[0].img)
        write_names(part, file)
        if part[0].img == "8.jpg":
            other.close()

    run_shards(tmp_path, PHOTOS, 4, note, "test")
    assert done == ["4.jpg", "8.jpg", "0.jpg"]


def test_a_part_that_another_process_has_finished_is_not_done_again(tmp_path: Path) -> None:
    done: list[str] = []
    other = ExitStack()
    other.enter_context(claimed(tmp_path / ".00000-of-00003.csv.gz.lock", wait=False))

    def finish() -> None:
        write_names(PHOTOS[:4], tmp_path / "00000-of-00003.csv.gz")
        other.close()

    later = Timer(0.3, finish)  # while it is waited for

    def note(part: Sequence[Photo], file: Path) -> None:
        done.append(part[0].img)
        write_names(part, file)
        if part[0].img == "8.jpg":
            later.start()

    run_shards(tmp_path, PHOTOS, 4, note, "test")
    later.join()
    assert done == ["4.jpg", "8.jpg"]


def test_a_key_depends_on_everything_and_not_on_order() -> None:
    assert key_of(a=1, b=[2, 3]) == key_of(b=[2, 3], a=1)
    assert len({key_of(a=1, b=[2, 3]), key_of(a=1, b=[3, 2]), key_of(a=2, b=[2, 3])}) == 3


def test_every_setting_of_inference_decides_the_answers_unless_named_here() -> None:
    """``readers`` changes only the pace; the others are given to a key as what came of them."""
    elsewhere = {"readers", "threshold", "weights", "pseudo"}
    other = Inference(tta=["hflip"], precision="fp32", compile=True, batch_size=3, shard=5)
    facts, others = (facts_of(how, torch.device("cpu")) for how in (Inference(precision="bf16"), other))
    assert {name for name in facts if facts[name] != others[name]} == Inference.model_fields.keys() - elsewhere
    assert facts.keys() - Inference.model_fields.keys() == {"device", "threads"}


def test_parts_of_another_call_are_kept_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = {"batch_size": 8, "checkpoints": {0: "a"}}
    old = parts_of(tmp_path, first, "all")
    parts_of(tmp_path, {**first, "batch_size": 2}, "all")
    assert capsys.readouterr().out == "", "nothing is finished yet"
    (file,) = run_shards(old / "fold0", PHOTOS, 10, write_names, "test")
    parts_of(tmp_path, first, "all")
    assert "note" not in capsys.readouterr().out, "it is taken up"
    parts_of(tmp_path, {**first, "batch_size": 4}, "all")
    line = f"note: images finished with other batch_size are not taken up; {old / 'facts.json'} says which\n"
    assert capsys.readouterr().out == line
    assert file.is_file()


def test_the_parts_of_all_calls_are_removed(tmp_path: Path) -> None:
    parts_of(tmp_path / "parts", {"batch_size": 8}, "all")
    remove_parts(tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    remove_parts(tmp_path / "parts")
