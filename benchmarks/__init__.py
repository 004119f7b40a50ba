"""The measurements behind the published figures: ``make bench``."""

from competition.command import handle_interrupt_during_imports

handle_interrupt_during_imports()
