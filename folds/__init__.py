"""K-fold training: split by car, samples, networks, losses, trainer."""

import os

from competition.command import handle_interrupt_during_imports

handle_interrupt_during_imports()
# OpenMP threads must sleep while they wait. By default they spin, and processes that share cores slow each other down
# several times. The variable is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
