"""Fixtures that several test files share."""

from kaggle_server import server  # noqa: F401
from trained_run import trained, trained_once  # noqa: F401
