"""The submission file: write, read, validate, upload to Kaggle, and the ledger. Does not import torch."""

import competition  # noqa: F401  checks Python's version and handles Ctrl-C before other imports
