"""What a reply of Kaggle's API must be.

A proxy, a captive portal or a login page may reply instead, with status 200 and with JSON. What such a reply lacks is
unknown, not empty: an empty list of submissions would lead to a second upload of the same file.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from competition.kaggle.errors import unreadable_reply

# A reply has one of these keys. Kaggle omits zeros and empty lists, so some replies may be ``{}``.
KEYS = {
    "ListSubmissions": {"submissions"},
    "ListDataFiles": {"files"},
    "GetSubmissionLimits": {"numToday", "numTotal", "numAllowedNow"},
    "StartSubmissionUpload": {"createUrl"},
}
MAY_BE_EMPTY = {"ListSubmissions", "GetSubmissionLimits"}
DOWNLOAD = "DownloadDataFile"  # its reply is a file, at the end of a redirection to the storage


class Replies:
    """Checks every reply to a client of Kaggle's that calls this object with it, and keeps the JSON."""

    def __init__(self) -> None:
        self.checked: list[dict[str, Any]] = []

    def __call__(self, response: Any) -> None:
        """Check a response with a good status; raises KaggleError if it is not Kaggle's."""
        first = response.history[0] if response.history else response
        call = urlsplit(first.request.url).path.split("/")[-1]
        if call == DOWNLOAD:
            return
        if response.history:
            raise unreadable_reply(f"it leads to {urlsplit(response.url).hostname}")
        try:
            reply = response.json()
        except ValueError as error:
            raise unreadable_reply("it is a web page" if b"<" in response.content[:200] else "no JSON") from error
        if not isinstance(reply, dict):
            raise unreadable_reply("it is not a JSON object")
        keys = KEYS.get(call)
        if keys and not keys & reply.keys() and (reply or call not in MAY_BE_EMPTY):
            raise unreadable_reply(f"it has no `{min(keys)}`")
        self.checked.append(reply)

    def listed(self, request: Any, call: Callable[[Any], object], key: str) -> Iterator[dict[str, Any]]:
        """The entries of a list under ``key``, from all pages; raises KaggleError if a page is no list.

        The JSON is read, because the client fails on a status that it does not know.
        """
        tokens: set[str] = set()
        while True:
            self.checked.clear()
            with suppress(KeyError, TypeError, AttributeError):
                call(request)
            if not self.checked:
                raise unreadable_reply("it is not a JSON object")
            [page] = self.checked
            entries = page.get(key, [])
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise unreadable_reply(f"`{key}` is not a list")
            yield from entries
            token = page.get("nextPageToken")
            if not token:
                return
            if token in tokens:
                raise unreadable_reply("the list has no end")
            tokens.add(token)
            request.page_token = token


def field(entry: dict[str, Any], key: str) -> Any:
    """The value of a key that an entry of a list must have."""
    if entry.get(key) in (None, "", 0):
        raise unreadable_reply(f"an entry has no `{key}`")
    return entry[key]


def content_length(response: Any, name: str, expected: int) -> int:
    """The size of a file that the storage sends, which must be the expected one."""
    length = int(response.headers.get("Content-Length") or -1)
    if length != expected:
        kind = str(response.headers.get("Content-Type") or "").partition(";")[0]
        what = "a web page" if kind == "text/html" else f"{length:,} bytes"
        raise unreadable_reply(f"it is {what}, not the {expected:,} bytes of {name}")
    return length
