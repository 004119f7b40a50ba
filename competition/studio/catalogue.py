"""Invented makes and models."""

from dataclasses import dataclass

import numpy as np

# (make, model, kind, how common)
_MODELS: tuple[tuple[str, str, str, float], ...] = (
    ("Aldena", "Corso", "sedan", 3.0),
    ("Aldena", "Brio S", "hatchback", 2.0),
    ("Aldena", "Tarn", "suv", 2.0),
    ("Brennick", "Statesman", "sedan", 2.0),
    ("Brennick", "Drover", "pickup", 2.0),
    ("Brennick", "Highfield", "suv", 3.0),
    ("Kaimura", "Sora", "sedan", 3.0),
    ("Kaimura", "Pico", "hatchback", 2.0),
    ("Kaimura", "Umi", "van", 1.0),
    ("Kaimura", "Takara", "suv", 2.0),
    ("Norrvik", "N4", "sedan", 2.0),
    ("Norrvik", "N4 Touring", "suv", 1.0),
    ("Orsino", "Vela", "hatchback", 2.0),
    ("Orsino", "Famiglia", "van", 1.0),
    ("Pinecrest", "Rancher", "pickup", 2.0),
    ("Pinecrest", "Summit", "suv", 2.0),
)
_TRIMS = ("Base", "LE", "Sport", "Limited", "w/Leather", "Premium", "2WD", "4WD")


@dataclass(frozen=True)
class Entry:
    """The row of a car in metadata.csv, and the kind of its body."""

    year: int
    make: str
    model: str
    trim1: str
    trim2: str
    kind: str

    @property
    def row(self) -> tuple[str, ...]:
        """The columns of metadata.csv after `id`."""
        return str(self.year), self.make, self.model, self.trim1, self.trim2


def entry_of(rng: np.random.Generator) -> Entry:
    """A random car; common models are more likely."""
    weights = np.array([common for *_, common in _MODELS])
    make, model, kind, _ = _MODELS[int(rng.choice(len(_MODELS), p=weights / weights.sum()))]
    return Entry(int(rng.integers(2007, 2018)), make, model, model, str(rng.choice(_TRIMS)), kind)
