"""Fixtures that several test files share."""

from kaggle_server import server  # noqa: F401
