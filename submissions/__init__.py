"""The submission file: write, read, validate, upload to Kaggle, and the ledger. Does not import torch."""

from competition.command import handle_interrupt_during_imports

handle_interrupt_during_imports()
