"""The hub that timm fetches weights from, where it may not be reached."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session
from huggingface_hub.errors import LocalEntryNotFoundError

PATIENCE = 30  # seconds; a slow connection answers one short question in that time


@contextmanager
def asked_once() -> Iterator[None]:
    """Where the hub gives no answer, let its client take what was fetched before, or fail at once.

    The client cannot be told how often to try: it asks a dozen times, prints two lines each time, and takes a minute
    where there is no network, longer where a firewall says nothing.

    Raises:
        Exception: what kept the hub from answering, if what is wanted was not fetched before.
    """
    silent = _unreachable()
    before = constants.HF_HUB_OFFLINE
    # The environment variable of that name is read once, when the client is imported.
    constants.HF_HUB_OFFLINE = before or silent is not None
    try:
        yield
    except LocalEntryNotFoundError as error:
        if silent is None:
            raise
        raise silent from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _unreachable() -> Exception | None:
    """Why the hub cannot be reached; None where it answers, whatever the answer is."""
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # the HTTP library's, which differs with the client's version
        return error
    return None
