"""The names that Kaggle requires in a submission: those of Carvana's test set."""

import hashlib
import re
from collections.abc import Iterable

from competition.listing import few

IMAGES = 100_064  # 6,254 cars from 16 sides
# SHA-256 of the names in Kaggle's sample_submission.csv, sorted, one a line.
NAMES = "fee7b85d8bc4a334954c0dbb88a478f550c526e2da7919147823f6914b43c8e9"
CARVANA = re.compile(r"[0-9a-f]{12}_(0[1-9]|1[0-6])\.jpg")


def why_not(names: Iterable[str]) -> str | None:
    """Why names are not those of Carvana's test set; None if they are."""
    names = sorted(names)
    if hashlib.sha256("\n".join(names).encode()).hexdigest() == NAMES:
        return None
    foreign = [name for name in names if not CARVANA.fullmatch(name)]
    if foreign:
        return f"{len(names):,} names; not in the form 0cdf5b5d0ce1_01.jpg: {len(foreign):,}, such as {few(foreign)}"
    if len(names) != IMAGES:
        return f"{len(names):,} names: {few(names)}"
    return f"{IMAGES:,} names, but not all of them are Carvana's"
