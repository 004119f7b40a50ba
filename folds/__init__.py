"""K-fold training: split by car, samples, networks, losses, trainer."""

import os

from competition.command import handle_interrupt_during_imports

handle_interrupt_during_imports()
# Read when torch is imported: waiting OpenMP threads sleep. Spinning slows processes that share cores several times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
