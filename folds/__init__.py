"""K-fold training: split by car, samples, networks, losses, trainer."""

from competition.command import handle_interrupt_during_imports

handle_interrupt_during_imports()
