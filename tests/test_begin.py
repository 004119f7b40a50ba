"""What is checked before a run exists, and what its creation writes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CARS, save_mask

from competition.command import Failure
from competition.data_folder import DataFolder
from competition.run.folder import RunFolder
from competition.settings.resolve import load_yaml, resolve
from folds.begin import ensure_split, main
from folds.networks.build import make_network
from folds.networks.suitable import require_suitable
from folds.train import main as train

SMALL = [
    *("split.folds=3", "input={height: 32, width: 64}", "network={width: 4, depth: 1, stem: 2}"),
    "train={epochs: 2, batch_size: 2, workers: 0}",
]
TIMM = "network={name: timm_unet, width: 32, max_width: 256, depth: 4, stem: 1, decoder: [8], "


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "mine")


def arguments_of(run: RunFolder, data: Path, *settings: str) -> list[str]:
    return ["--run", str(run.root), "--data", str(data), "--preset", "demo", "--set", *SMALL, *settings]


def test_the_folds_csv_of_a_run_defines_its_split(tiny_data: Path, run: RunFolder) -> None:
    data, settings = DataFolder(tiny_data), resolve({"split": {"folds": 3}})
    first = ensure_split(run, settings, data)
    assert sorted(first) == [0, 1, 2]
    moved = run.folds.read_text().replace(",0\n", ",x\n").replace(",1\n", ",0\n").replace(",x\n", ",1\n")
    run.folds.write_text(moved)
    second = ensure_split(run, settings, data)
    assert (second[0], second[1], second[2]) == (first[1], first[0], first[2])


def test_the_copied_split_of_another_run_has_its_folds(tiny_data: Path, tmp_path: Path, run: RunFolder) -> None:
    """A spreadsheet program may have saved it, with Windows line ends and a blank line."""
    source, data = RunFolder(tmp_path / "runs" / "source"), DataFolder(tiny_data)
    ensure_split(source, resolve({"split": {"folds": 2}}), data)
    source.folds.write_bytes(source.folds.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    settings = resolve({"network": {"init_from": str(source.root)}, "split": {"folds": 4}})
    assert list(ensure_split(run, settings, data)) == [0, 1]
    assert resolve(load_yaml(run.settings)).split.folds == 2
    assert run.folds.read_bytes() == source.folds.read_bytes()


def test_make_folds_creates_the_run(
    tiny_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main(arguments_of(run, tiny_data, "train.batch_size=auto"))
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed[-4:-1]] == ["fold 0", "fold 1", "fold 2"]
    assert printed[-1] == f"{run.folds}  next: make train FOLD=0 RUN={run.root}"
    assert load_yaml(run.settings)["train"]["batch_size"] == 8


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["--fold", "7"], "there is no fold 7 among 3; FOLD is 0 to 2"),
        (["--fold", "-1"], "there is no fold -1 among 3; FOLD is 0 to 2"),
        (["--batch-size", "max"], "train.batch_size='max' is not allowed: auto or a whole"),
        (["split.folds=9"], "5 cars cannot be divided into 9 folds"),
        (["network={depth: 6, stem: 4}"], "input.height=32 is not a multiple of 256"),
        ([TIMM + "encoder: resnet10t, weights: none.pth}"], "there is no file none.pth"),
        (
            [TIMM + "encoder: mixer_s16_224}"],
            r"network.encoder=mixer_s16_224 cannot take 64 x 32 \(.*224",
        ),
        (
            ["input={height: 256, width: 448}", "augment.crop=[160, 160]", TIMM + "encoder: test_maxvit}"],
            r"network.encoder=test_maxvit cannot take 448 x 256 \(.*window",
        ),
        (
            ["input.width=32", "network={depth: 4}", "train.batch_size=1"],
            r"name=unet cannot be trained on one photo of 32 x 32 at a time .*, and train.batch_size=1; use 2, ",
        ),
        (["input.fit=pad"], r"_01\.jpg is .*, larger than the frame of 64 x 32 that input.fit=pad"),
        ([f"data.leave_out=[{','.join(CARS)}]"], r"data\.leave_out=.* leaves no photo to learn from"),
        (
            ["split.folds=2", f"data.leave_out=[{','.join(CARS[:4])}]"],
            r"data\.leave_out=.* leaves no photo to learn from",
        ),
        (["data.leave_out=[other]"], r"data.leave_out names other, which is no image or car"),
    ],
)
def test_rejected_settings_leave_no_run(tiny_data: Path, run: RunFolder, settings: list[str], reason: str) -> None:
    """Otherwise the run would exist with the rejected settings and reject the corrected ones."""
    with pytest.raises(Failure, match=reason):
        train(["--fold", "0", *arguments_of(run, tiny_data, *settings)])
    assert not run.root.exists()


def test_make_folds_checks_the_network_too(tiny_data: Path, run: RunFolder) -> None:
    with pytest.raises(Failure, match=r"^input\.height=96 is not a multiple of 64"):
        main(arguments_of(run, tiny_data, "input.height=96", "network.depth=5"))
    assert not run.root.exists()


def test_a_missing_mask_is_found_before_the_run_exists(own_data: Path, run: RunFolder) -> None:
    photo = sorted((own_data / "train").iterdir())[3]
    (own_data / "train_masks" / f"{photo.stem}_mask.gif").unlink()
    (own_data / "train_masks.csv").unlink()
    with pytest.raises(Failure, match=rf"{photo.name} has no mask"):
        train(["--fold", "0", *arguments_of(run, own_data)])
    assert not run.root.exists()


def test_an_empty_mask_stops_a_new_run_and_an_existing_one(own_data: Path, run: RunFolder) -> None:
    table = own_data / "train_masks.csv"
    right = table.read_text()
    empty = right.replace(right.splitlines()[1].partition(",")[2], "", 1)
    table.write_text(empty)
    message = r"1 of 10 training masks in .* cover less than data\.min_area=0\.01 or .*_01\.jpg 0\.0000\)"
    for command, which in ((main, []), (train, ["--fold", "0"])):
        with pytest.raises(Failure, match=message):
            command([*which, *arguments_of(run, own_data)])
        assert not run.root.exists()
    table.write_text(right)
    main(arguments_of(run, own_data))
    table.write_text(empty)
    with pytest.raises(Failure, match=message):
        main(arguments_of(run, own_data))
    main(arguments_of(run, own_data, "data.min_area=0"))


def test_masks_that_were_checked_are_not_read_again(
    own_data: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, data = resolve({"split": {"folds": 3}}), DataFolder(own_data)
    ensure_split(run, settings, data)
    monkeypatch.setattr(DataFolder, "truth_spans", None)
    ensure_split(run, settings, data)


def test_other_data_are_rejected(tiny_data: Path, own_data: Path, run: RunFolder) -> None:
    settings = resolve({"split": {"folds": 3}})
    ensure_split(run, settings, DataFolder(tiny_data))
    run.folds.unlink()
    next((own_data / "train").iterdir()).unlink()
    with pytest.raises(Failure, match="not those that run mine was made from"):
        ensure_split(run, settings, DataFolder(own_data))
    assert not run.folds.exists()


def test_checking_a_network_draws_no_random_number() -> None:
    """Otherwise the first call, which checks, would train another network than a call after `make folds`."""
    settings = resolve({"network": {"name": "timm_unet", "encoder": "resnet10t"}})
    network = make_network(settings)
    before = torch.get_rng_state()
    require_suitable(network, settings)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "create", [main, lambda arguments: train([*arguments, "--fold", "0"])], ids=["folds", "train"]
)
def test_implausible_groups_are_named_before_the_run_is_created(
    own_data: Path, run: RunFolder, capsys: pytest.CaptureFixture[str], create: Callable[[list[str]], None]
) -> None:
    for number, path in enumerate(sorted((own_data / "train").iterdir()), start=12):
        path.rename(path.with_name(f"IMG_{number}.jpg"))
        mask = own_data / "train_masks" / f"{path.stem}_mask.gif"
        mask.rename(mask.with_name(f"IMG_{number}_mask.gif"))
    (own_data / "train_masks.csv").unlink()
    create(arguments_of(run, own_data, "train.epochs=1"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(
        "warning: IMG_12.jpg and others count as views of one car, IMG, but IMG_17.jpg has a"
    )
    assert sum(line.startswith("warning: ") for line in printed) == 1
    create(arguments_of(run, own_data, "train.epochs=1"))
    assert "warning: " not in capsys.readouterr().out


def test_a_new_run_warns_of_inverted_masks(
    own_data: Path, run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, data = DataFolder(own_data).train[0], DataFolder(own_data)
    save_mask(own_data / "train_masks" / f"{photo.img[:-4]}_mask.gif", 1 - data.truth(photo))
    (own_data / "train_masks.csv").unlink()
    main(arguments_of(run, own_data))
    assert f"warning: 1 training mask looks inverted: {photo.img}; " in capsys.readouterr().out
