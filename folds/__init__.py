"""K-fold training: split by car, samples, networks, losses, trainer."""

import os

import competition  # noqa: F401  checks Python's version and handles Ctrl-C before other imports

# Read when torch is imported: waiting OpenMP threads sleep. Spinning slows processes that share cores several times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
