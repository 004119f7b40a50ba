"""Take the data from a folder that holds Kaggle's zip files, or what was unpacked from them.

The folder is only read, so it may be a read-only mount, as in a notebook at Kaggle. Zip files are unpacked from where
they are. What is unpacked already is linked: it takes no space, and the data folder needs the source from then on.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from competition.command import Failure, os_reason
from competition.files import read_json, write_json
from competition.hint import hint
from competition.kaggle.archives import Archive, archives, find_problem, image_names
from competition.kaggle.staging import UNPACK, Staging, size_text
from competition.kaggle.unpack import Damaged, Member, kinds_in, list_members, missing_bytes, unpack


class SourceFolder:
    """A folder with Kaggle's files, as the source of a data folder.

    Args:
        folder: the folder.
        root: the data folder.
    """

    verb = "unpack"

    def __init__(self, folder: Path, root: Path) -> None:
        require_apart(folder, root)
        self.folder = folder
        self.staging = Staging(root, UNPACK, whole=False)
        self._members: dict[Archive, list[Member]] = {}

    def offers(self, archive: Archive) -> bool:
        """Whether the folder has an archive, or its content."""
        return self._zip(archive).is_file() or any(True for _ in self._unpacked(archive))

    def is_complete(self, archive: Archive) -> bool:
        """Whether the content of an archive is in the data folder; fails if the source has another table."""
        if not self.staging.is_complete(archive):
            return False
        if archive.suffix == ".csv" and self.offers(archive):
            target, found = self.staging.root / archive.target, self._found(archive)
            if not self._is_same(archive, target, found):
                raise Failure(
                    f"{target} differs from the one in {found}; name another data folder with DATA=..., or remove "
                    f"{target}"
                )
        return True

    def missing_bytes(self, archive: Archive) -> int:
        """The bytes on the disk that are still needed for an archive; 0 if it is unpacked in the source."""
        found = self._found(archive)
        if found != self._zip(archive):
            return 0
        return missing_bytes(self._members_of(archive), self.staging.unpacked(archive))

    def fetch(self, archive: Archive) -> None:
        """Unpack an archive, or link what is unpacked; check the content, and move it into place. Resumes."""
        found = self._found(archive)
        if found.resolve().is_relative_to(self.staging.root.resolve()):
            raise Failure(f"{found} is a link into DATA; name another folder with FROM=... or DATA=...")
        try:
            if found == self._zip(archive):
                size = found.stat().st_size
                print(f"{archive.name} ({size_text(size)})", flush=True)
                self._unpack(archive, found)
                self.staging.put_in_place(archive, size)
            else:
                print(f"{archive.target}: a link to {found}", flush=True)
                self._link(archive, found)
                self.staging.put_in_place(archive, None)
        except Damaged as error:
            self.staging.discard(archive)
            raise _damaged(found, error) from error

    def _unpack(self, archive: Archive, path: Path) -> None:
        members, member_list = self._members_of(archive), self.staging.member_list(archive)
        content = {"members": [asdict(member) for member in members]}
        # What is unpacked already may come from another archive of that name.
        if not member_list.is_file() or read_json(member_list) != content:
            self.staging.discard(archive)
            write_json(member_list, content)
        unpack(path, members, self.staging.unpacked(archive))

    def _link(self, archive: Archive, found: Path) -> None:
        self.staging.discard(archive)
        unpacked = self.staging.unpacked(archive)
        link = unpacked / archive.target if archive.suffix == ".csv" else unpacked
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(found.absolute(), target_is_directory=found.is_dir())

    def _zip(self, archive: Archive) -> Path:
        return self.folder / archive.name

    def _unpacked(self, archive: Archive) -> Iterator[Path]:
        """Tables or folders of images with the content of an archive.

        Programs that unpack train.zip make train, or train/train, or even train.zip/train.
        """
        for parent in (self.folder, self.folder / archive.target, self._zip(archive)):
            path = parent / archive.target
            if archive.suffix == ".csv" and path.is_file():
                yield path
            if archive.suffix != ".csv" and path.is_dir() and any(image_names(archive, path)):
                yield path

    def _found(self, archive: Archive) -> Path:
        """The unpacked content of an archive if it is complete, otherwise the zip file."""
        problems = []
        for path in self._unpacked(archive):
            problem = find_problem(archive, path, self.staging.root, self.staging.whole)
            if problem is None:
                return path
            problems.append(_damaged(path, Damaged(problem)))
        if self._zip(archive).is_file():
            return self._zip(archive)
        raise problems[0] if problems else Failure(f"{self.folder} has no {archive.name}")

    def _members_of(self, archive: Archive) -> list[Member]:
        path = self._zip(archive)
        if archive not in self._members:
            try:
                self._members[archive] = list_members(path, archive.suffix)
            except Damaged as error:
                raise _damaged(path, error) from error
            if not self._members[archive] and archive.suffix != ".csv" and (kinds := kinds_in(path)):
                raise Failure(
                    f"{path} holds {kinds}, and Kaggle's {archive.name} {archive.suffix}; unpack it and the photos "
                    f"yourself, and make a data folder of them: {_adoption(self.staging.root)}"
                )
        return self._members[archive]

    def _is_same(self, archive: Archive, target: Path, found: Path) -> bool:
        """Whether a table in the data folder has the content of the one in the source."""
        if found != self._zip(archive):
            return target.samefile(found) or _crc(target) == _crc(found)
        return _crc(target) in {each.crc for each in self._members_of(archive) if each.name == archive.target}


def available(source: SourceFolder, wanted: Sequence[Archive]) -> list[Archive]:
    """The archives that a source has, or the data folder already; fails if training is not possible with them."""
    found = [each for each in wanted if source.offers(each) or source.staging.is_complete(each)]
    targets = {archive.target for archive in found}
    photos = next(each for each in wanted if each.target.startswith("train") and each.suffix == ".jpg")
    if photos not in found:
        raise Failure(_nothing_found(source, photos))
    if not targets & {"train_masks", "train_masks.csv"}:
        masks = source.folder / "train_masks"
        advice = f"; {masks} has no .gif files; use it by {_adoption(source.staging.root, masks)}"
        raise Failure(
            f"{source.folder} has neither train_masks.zip nor train_masks.csv.zip, nor what is in them"
            f"{advice if masks.is_dir() else ''}"
        )
    if absent := [archive.name for archive in wanted if archive not in found]:
        print(f"not in {source.folder}: {', '.join(absent)}", flush=True)
    return found


def require_apart(folder: Path, root: Path) -> None:
    """Fail unless a source is a folder outside the data folder that does not contain it."""
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise Failure(f"FROM={folder} {kind}; name the folder with Kaggle's zip files, or with what is in them")
    source, target = folder.resolve(), root.resolve()
    if source == target:
        raise Failure(f"FROM and DATA are the same folder, {folder}; name another one with DATA=...")
    if source.is_relative_to(target) or target.is_relative_to(source):
        inner, outer = ("FROM", "DATA") if source.is_relative_to(target) else ("DATA", "FROM")
        raise Failure(f"{inner} lies inside {outer} ({source}, {target}); name another folder with DATA=...")


def _nothing_found(source: SourceFolder, photos: Archive) -> str:
    """Why there are no training photos: the other kind is there, or Kaggle's files are in a folder below."""
    folder = source.folder
    message = f"{folder} has neither {photos.name} nor a folder {photos.target} with photos"
    every = [*archives(hq=False), *archives(hq=True)]
    other = next(each for each in every if each.name in ("train.zip", "train_hq.zip") and each != photos)
    if source.offers(other):
        return f"{message}, but {other.target}; {'add' if other.target == 'train_hq' else 'leave out'} HQ=1"
    names = {name for archive in every for name in (archive.name, archive.target)}
    for path in sorted([*folder.glob("*/*"), *folder.glob("*/*/*")]):
        if path.name in names:
            return f"{message}; Kaggle's files are in FROM={path.parent}"
    present = sorted(path.name for path in folder.iterdir())
    return f"{message}; it holds {', '.join(present[:8]) or 'nothing'}{', ...' * (len(present) > 8)}"


def _adoption(root: Path, masks: Path | None = None) -> str:
    """The command that makes a data folder of photos and masks that are not Kaggle's files."""
    photos = masks.with_name("train") if masks else "..."
    return hint("adopt", IMAGES=photos, MASKS=masks or "...", DATA=f"{root}-adopted")


def _damaged(path: Path, error: Damaged) -> Failure:
    return Failure(f"{path} is damaged or incomplete: {error}; copy it from Kaggle again")


def _crc(path: Path) -> int:
    try:
        return zlib.crc32(path.read_bytes())
    except OSError as error:
        raise Failure(f"cannot read {path}: {os_reason(error)}") from error
