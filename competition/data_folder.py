"""The data folder, in Kaggle's layout, as tables.

    train/<car>_<view>.jpg               or train_hq/; PNG works too
    train_masks/<car>_<view>_mask.gif    or .png; not needed if train_masks.csv has all masks
    train_masks.csv                      img,rle_mask
    test/<car>_<view>.jpg                or test_hq/
    sample_submission.csv                img,rle_mask: the names of a submission in their order
    metadata.csv                         id,year,make,model,trim1,trim2

Only the photos are required. Which photos show one car is decided by ``competition.grouping``.
"""

import copy
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from competition import csv_file, orientation, rle
from competition.command import Failure
from competition.exif import UPRIGHT, turned
from competition.grouping import Groups, car_and_view, groups
from competition.hint import hint
from competition.images import PHOTO_TYPES, Pixels
from competition.layout_advice import advice_without, packed
from competition.listing import Listing, few, list_images
from competition.mask_file import MASK_TYPES, MaskFile, read_mask
from competition.mask_table import MaskRow, read_rows, read_table
from competition.mask_values import MaskValues
from competition.names import canonical, is_utf8, mask_key, without_suffix
from competition.orientation import Drawn, Orientations, Pair
from competition.photo import Photo
from competition.plural import counted
from competition.rle import Spans
from competition.settings.schema import Data

if TYPE_CHECKING:  # half of the time that commands without torch take to start
    import pandas as pd

MASKS = "train_masks"  # the folder of the mask files


class DataFolder:
    """The data in one folder; each part is read at its first use.

    Args:
        root: the folder.
        settings: which photos and masks are used, and how they are read.
    """

    def __init__(self, root: Path, settings: Data | None = None) -> None:
        self.root = root
        self.settings = settings or Data()
        self._listings: dict[str, Listing] = {}
        if not is_utf8(str(root)):
            raise Failure(f"the name of the data folder {root} is not UTF-8; rename it")
        if root.is_file():
            raise Failure(f"{root} is a file, not a data folder; name the folder with DATA=...")
        if not root.is_dir() or all(path.name.startswith(".") for path in root.iterdir()):
            raise Failure(
                f"no data folder {root}; name one with DATA=..., or make one: `make data` (Kaggle's), or "
                "`make synthetic` (generated cars), then DATA=data/synthetic"
            )

    @cached_property
    def train(self) -> list[Photo]:
        """The training photos, sorted by name; never empty."""
        return self._photos("train")

    @cached_property
    def test(self) -> list[Photo]:
        """The test photos, sorted by name; never empty."""
        return self._photos("test")

    @cached_property
    def submission_names(self) -> list[str]:
        """The names of a submission in their order: from sample_submission.csv, otherwise from the test folder."""
        sample = self.root / "sample_submission.csv"
        if not sample.is_file():
            return [photo.img for photo in self.test]
        names = [row.img for row in read_rows(sample)]
        if not names:
            raise Failure(f"{sample} has no rows; copy it again from Kaggle, or remove it to predict all of test")
        if len(set(names)) < len(names):
            [(twice, _)] = Counter(names).most_common(1)
            raise Failure(f"{sample} names {twice} twice; copy the file again from Kaggle")
        return names

    @cached_property
    def submission_photos(self) -> list[Photo]:
        """The test photos that a submission names, in its order."""
        by_name = {photo.img: photo for photo in self.test}
        missing = [name for name in self.submission_names if name not in by_name]
        if missing:
            raise Failure(
                f"{len(missing):,} names of {self.root / 'sample_submission.csv'} are not in the test folder, such "
                f"as {missing[0]}; `{self.check_hint}` lists them"
            )
        return [by_name[name] for name in self.submission_names]

    @cached_property
    def metadata(self) -> "pd.DataFrame":
        """metadata.csv with the car as index; an empty table with the same columns if the file does not exist."""
        import pandas as pd

        path = self.root / "metadata.csv"
        columns = ["id", "year", "make", "model", "trim1", "trim2"]
        if not path.is_file():
            return pd.DataFrame(columns=columns).set_index("id")
        header, lines = csv_file.read(path)
        if "id" not in header:
            raise Failure(f"{path} has no column `id`; {csv_file.header_problem(header, columns)}")
        table = pd.DataFrame([line.fields for line in lines], columns=header, dtype=str)
        return table.drop_duplicates("id").set_index("id")

    def truth_spans(self, photo: Photo) -> Spans:
        """The spans of a training photo's mask, which must have the size of the photo.

        They come from its row in train_masks.csv if there is one, which takes a tenth of the time, otherwise from the
        mask file. `make check` compares the two.
        """
        file = self.mask_file(photo)
        if file is not None:
            self.require_size(photo, file)
        if photo.img in self._mask_rows:
            return self._mask_rows[photo.img].spans(photo.shape)
        if file is None:
            raise Failure(
                f"{photo.path} has no mask: neither {self.root / MASKS}/{without_suffix(photo.img)}_mask.gif nor "
                f"a row in {self.masks_csv}; add one, or remove the photo{self._strangers()}"
            )
        return rle.from_mask(self.read_mask(photo, file))

    def truth(self, photo: Photo) -> Pixels:
        """The mask of a training photo, (H, W) uint8 of 0 and 1."""
        return rle.to_mask(self.truth_spans(photo), photo.shape)

    def require_masks(self, photos: Iterable[Photo]) -> None:
        """Fail if a photo has no mask or a mask of another size; reads only the headers of the files."""
        for photo in photos:
            file = self.mask_file(photo)
            if file is not None:
                self.require_size(photo, file)
            elif photo.img not in self._mask_rows:
                self.truth_spans(photo)

    def read_mask(self, photo: Photo, file: Path) -> Pixels:
        """The mask in a file as (H, W) uint8 of 0 and 1, turned to fit the photo, whose size it must have."""
        return self.fitted(photo, read_mask(file))

    def fitted(self, photo: Photo, file: MaskFile) -> Pixels:
        """The mask in a file that has been read, like ``read_mask``."""
        self.require_size(photo, file.path)
        return turned(self.mask_values.mask(file), self._turn(photo, file.path))

    def require_size(self, photo: Photo, file: Path) -> None:
        """Fail unless a mask file fits its photo; reads only the headers."""
        pair = Pair(photo.path, file)
        orientation.require_same_size(
            pair, upright=photo.upright, turn=self._turn(photo, file), check=self.check_hint
        )

    def orientations(self, train: Sequence[Photo], test: Sequence[Photo]) -> Orientations:
        """The EXIF orientations of photos, and how the masks of turned ones were drawn; reads all headers."""
        found: tuple[Counter[int], Counter[int]] = Counter(), Counter()
        for photo in (*train, *test):
            found[photo.upright][orientation.readable_orientation(photo.path)] += 1
        rows = sum(_is_turned(photo) and self.mask_file(photo) is None for photo in train)
        return Orientations(ignored=found[False], applied=found[True], masks=self._masks_drawn, rows=rows)

    @cached_property
    def _masks_drawn(self) -> Drawn:
        """How the mask files of turned photos were drawn."""
        files = ((photo, self.mask_file(photo)) for photo in self.train if _is_turned(photo))
        return orientation.drawn(Pair(photo.path, file) for photo, file in files if file)

    def _turn(self, photo: Photo, file: Path) -> int:
        """The orientation that turns a mask file to its photo."""
        return (
            orientation.turn_of_mask(Pair(photo.path, file), lambda: self._masks_drawn) if photo.upright else UPRIGHT
        )

    def with_masks(self, file: Path) -> "DataFolder":
        """The same folder with the masks of a CSV of img,rle_mask added; they replace masks of the same name."""
        other = copy.copy(self)
        other.__dict__["_mask_rows"] = self._mask_rows | read_table(file)
        return other

    def mask_file(self, photo: Photo) -> Path | None:
        """The mask file of a training photo, or None."""
        return self._mask_files.get(mask_key(photo.img))

    def listing(self, folder: str) -> Listing:
        """What is in train, train_hq, test, test_hq or train_masks; the folder must exist."""
        if folder not in self._listings:
            types = MASK_TYPES if folder == MASKS else PHOTO_TYPES
            self._listings[folder] = list_images(self.root / folder, types, self.settings.cars == "folder")
        return self._listings[folder]

    @property
    def folders(self) -> list[str]:
        """The names of the folders that are read, of those that exist."""
        names = [self._photo_folder("train"), self._photo_folder("test"), MASKS]
        return [name for name in names if name and (self.root / name).is_dir()]

    @cached_property
    def check_hint(self) -> str:
        """The command that checks this folder, with the settings that decide what is read."""
        ours, default = self.settings, Data()
        names = [name for name in ("cars", "orientation") if getattr(ours, name) != getattr(default, name)]
        changed = [f"data.{name}={getattr(ours, name)}" for name in names]
        return hint("check", DATA=self.root, HQ=1 if ours.hq else None, SET=changed)

    @property
    def groups(self) -> Groups:
        """How the training photos were grouped into cars."""
        return groups({photo.img: photo.car for photo in self.train}, self.settings.cars)

    @cached_property
    def mask_values(self) -> MaskValues:
        """Which values of the mask files are car."""
        return MaskValues(list(self._mask_files.values()))

    @property
    def masks_csv(self) -> Path:
        """The path of the run-length codes of the training masks; the file may not exist."""
        return self.root / "train_masks.csv"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names and sizes of the training photos; a run stores it to recognize its data."""
        return fingerprint_of(self.train)

    @property
    def masks_fingerprint(self) -> str:
        """A hash of what ``truth_spans`` reads: the rows, and the names and sizes of the mask files."""
        digest = hashlib.sha256(_hash(_name_and_size(path.name, path) for path in self._mask_files.values()).encode())
        for img, row in self._mask_rows.items():
            digest.update(f"{img} {row.rle}\n".encode())
        return digest.hexdigest()[:16]

    @cached_property
    def _mask_files(self) -> dict[str, Path]:
        """The mask files by what their names share with their photos."""
        if not (self.root / MASKS).is_dir():
            return {}
        listing = self.listing(MASKS)
        listing.require_clean(self.check_hint)
        return {mask_key(name): path for name, path in listing.files.items()}

    @cached_property
    def _mask_rows(self) -> dict[str, MaskRow]:
        """train_masks.csv by image name; 45 MB for the whole training set."""
        return read_table(self.masks_csv) if self.masks_csv.is_file() else {}

    def _photos(self, kind: str) -> list[Photo]:
        folder = self._photo_folder(kind)
        if folder is None and self.settings.hq:
            fetch = hint("data", HQ=1, DATA=self.root)
            raise Failure(
                f"{self.root} has no folder {kind}_hq, for hq photos (data.hq=true); `{fetch}` fetches "
                "Carvana's; photos of your own go into a folder of that name"
            )
        if folder is None:
            advice = advice_without(self.root, (kind, f"{kind}_hq"))
            raise Failure(f"{self.root} has no folder {kind} or {kind}_hq; {advice}")
        listing = self.listing(folder)
        listing.require_clean(self.check_hint)
        if not listing.files:
            others = f"; it has {few([path.name for path in listing.others])}" if listing.others else ""
            raise Failure(f"{self.root / folder} holds no photos ({', '.join(PHOTO_TYPES)}){others}")
        return [photo_at(path, self.settings, img) for img, path in listing.files.items()]

    def _photo_folder(self, kind: str) -> str | None:
        """The name of the folder with the photos of a kind, train or test, if it exists."""
        names = [f"{kind}_hq"] if self.settings.hq else [kind, f"{kind}_hq"]
        return next((name for name in names if (self.root / name).is_dir()), None)

    def _strangers(self) -> str:
        """A note on masks in a zip file, or on masks without a photo: they may have other names than their photos."""
        if advice := packed(self.root, (MASKS, self.masks_csv.name)):
            return f"; {advice}"
        keys = {mask_key(photo.img) for photo in self.train}
        names = [path.name for key, path in self._mask_files.items() if key not in keys]
        return (
            f"; {counted(len(names), 'mask')} without a photo: {few(names)} (`make adopt` pairs other names)"
            if names
            else ""
        )


def fingerprint_of(photos: Iterable[Photo]) -> str:
    """A hash of the names, sizes and applied orientations of photos; reading the contents would take too long."""
    return _hash(
        _name_and_size(photo.img, photo.path) + (b"turned\n" if _is_turned(photo) else b"") for photo in photos
    )


def _name_and_size(name: str, path: Path) -> bytes:
    return f"{name} {path.stat().st_size}\n".encode()


def _hash(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _is_turned(photo: Photo) -> bool:
    """Whether a photo is turned by an EXIF orientation."""
    return photo.upright and orientation.readable_orientation(photo.path) != UPRIGHT


def photo_at(path: Path, settings: Data | None = None, img: str | None = None) -> Photo:
    """The photo in a file; ``0cdf5b5d0ce1_01.jpg`` is view 1 of car 0cdf5b5d0ce1.

    Args:
        path: the file.
        settings: how it is read.
        img: its name in tables; by default the name of the file.
    """
    settings = settings or Data()
    img = img or canonical(path.name)
    upright = orientation.applies(path.stem, settings.orientation)
    return Photo(img, *car_and_view(img, settings.cars), path, upright)
