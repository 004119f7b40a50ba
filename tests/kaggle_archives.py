"""The zip files of a small competition, in the layout of Kaggle's."""

import io
import zipfile

import numpy as np

TRAIN = [f"{car}_{view:02d}" for car in ("0cdf5b5d0ce1", "f00df00df00d") for view in (1, 2)]
TEST = [f"beefbeefbeef_{view:02d}" for view in range(1, 7)]
RANDOM = np.random.default_rng(7)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()


def table(header: str, *rows: str) -> bytes:
    return "".join(f"{line}\n" for line in (header, *rows)).encode()


def photos(folder: str, names: list[str], size: int = 200_000) -> dict[str, bytes]:
    # Kaggle's archives hold the folder, and one was packed on a Mac.
    files = {f"{folder}/{name}.jpg": RANDOM.bytes(size) for name in names}
    return files | {f"__MACOSX/{folder}/._{names[0]}.jpg": b"mac"}


CONTENT = {
    "sample_submission.csv.zip": {
        "sample_submission.csv": table("img,rle_mask", *(f"{name}.jpg,1 1" for name in TEST))
    },
    "train_masks.csv.zip": {"train_masks.csv": table("img,rle_mask", *(f"{name}.jpg,1 9" for name in TRAIN))},
    "metadata.csv.zip": {"metadata.csv": table("id,year,make,model,trim1,trim2", "f00d,2010,Acura,TL,Base,w/SE")},
    "train_masks.zip": {f"train_masks/{name}_mask.gif": RANDOM.bytes(500) for name in TRAIN},
    "train.zip": photos("train", TRAIN, 1000),
    "train_hq.zip": photos("train_hq", TRAIN, 1000),
    "test.zip": photos("test", TEST),
    "test_hq.zip": photos("test_hq", TEST, 1000),
    "unrelated.zip": {"unrelated.txt": b"?"},
}
ARCHIVES = {name: zipped(members, zipfile.ZIP_DEFLATED) for name, members in CONTENT.items()}


def expected(names: list[str]) -> dict[str, bytes]:
    """The files that archives hold, by their path in a data folder."""
    members = {member: content for name in names for member, content in CONTENT[name].items()}
    return {member: content for member, content in members.items() if not member.startswith("__MACOSX")}
