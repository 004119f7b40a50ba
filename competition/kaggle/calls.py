"""One call to Kaggle, in a process of its own: the only module that imports ``kaggle``.

``kaggle.client`` starts it, writes the request as one line of JSON to its standard input, and reads the answer as
JSON from its standard output. Kaggle's client knows neither deadlines nor silence: a process can be ended at any
instant, and what the client prints (signed addresses, request headers) goes nowhere.

An answer is ``{"result": ...}``, or ``{"error": kind, ...}`` with what is needed to tell a person about it. Nothing
in it is secret: addresses lose their query, and the credentials are blotted out wherever they occur.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

from competition.command import os_reason

COMPETITION = "carvana-image-masking-challenge"
PAGE_SIZE = 100
CHUNK = 1 << 18  # what a broken connection costs at most
# Seconds without a byte after which a download is given up; the deadline of the whole call is the caller's.
CONNECT, STALL = 30, 60

Answer = dict[str, Any]


class StorageRefusal(Exception):
    """The file did not reach the storage; the client reports that by returning normally."""


class LinkRefusal(Exception):
    """The link to a file was refused, most likely because it has expired."""


class UnreadableCredentials(Exception):
    """Kaggle's client can make nothing of the credentials that it found."""


class StorageStatus(logging.Handler):
    """Remembers how the storage answered the upload, which only urllib3's log tells."""

    status: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take the status from urllib3's record of an answered request: (scheme, host, port, method, ...)."""
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) == 8 and arguments[3] == "PUT":
            self.status = int(str(arguments[6]))


def submissions() -> list[Answer]:
    """Every submission of the team, as Kaggle's JSON has it.

    The answers are read as they came: the client's own reading of a list fails when the status of one submission
    is a word that it does not know.
    """
    api = _authenticated()
    from kaggle.api.kaggle_api_extended import KaggleApi
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    answers: list[Any] = []
    found: dict[int, Answer] = {}
    with KaggleApi.build_kaggle_client_with_params(
        api.args,
        username=api.config_values.get("username"),
        password=api.config_values.get("key"),
        api_token=api.config_values.get("token"),
        response_processor=answers.append,
    ) as client:
        request = ApiListSubmissionsRequest()
        request.competition_name = COMPETITION
        request.page_size = PAGE_SIZE
        while True:
            with suppress(KeyError):
                client.competitions.competition_api_client.list_submissions(request)
            page = answers[-1].json()
            new = {int(listed["ref"]): listed for listed in page.get("submissions") or [] if listed.get("ref")}
            if not new.keys() - found.keys():
                return list(found.values())
            found |= new
            if not page.get("nextPageToken"):
                return list(found.values())
            request.page_token = page["nextPageToken"]


def allowance() -> Answer:
    """How many submissions were made today, ever, and may be made now."""
    limits = _authenticated().competition_get_submission_limits(COMPETITION)
    return {"today": limits.num_today, "total": limits.num_total, "left": limits.num_allowed_now}


def push(file: str, description: str) -> int:
    """Upload a file and make a submission of it; returns its ref, 0 where Kaggle told none.

    Raises:
        StorageRefusal: the upload failed, so that there is no submission.
    """
    storage = StorageStatus()
    log = logging.getLogger("urllib3.connectionpool")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(storage)
    api = _authenticated()
    response = api.competition_submit(file, description, COMPETITION, quiet=not sys.stderr.isatty())
    if response.ref <= 0 and response.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
        raise StorageRefusal(storage.status)
    return int(response.ref)


def files() -> dict[str, int]:
    """The competition's files: name to size in bytes."""
    api = _authenticated()
    sizes: dict[str, int] = {}
    token: str | None = None
    while True:
        page = api.competition_list_files(COMPETITION, page_token=token, page_size=PAGE_SIZE)
        new = {file.name: int(file.total_bytes) for file in page.files}
        sizes |= new
        token = page.next_page_token
        if not token or not new:
            return sizes


def download(name: str, path: str) -> Answer:
    """Download one file of the competition to a path, going on with what is there of the same file already.

    The client's call gives the link, fresh each time. Its own download has other ideas: it would write an error's
    text into the file once the link has expired, and later go on from there.

    Raises:
        LinkRefusal: the storage does not take the link.
    """
    api = _authenticated()
    import requests
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFileRequest

    with api.build_kaggle_client() as client, requests.Session() as session:
        request = ApiDownloadDataFileRequest()
        request.competition_name = COMPETITION
        request.file_name = name
        linked = client.competitions.competition_api_client.download_data_file(request)
        linked.close()  # asked again below: from where we are, and with a time limit
        total = int(linked.headers["Content-Length"])
        have = _already_there(Path(path), linked.headers, total)
        if have < total:
            again = linked.request.copy()
            again.headers.update({"Range": f"bytes={have}-", "Accept-Encoding": "identity"})
            settings = session.merge_environment_settings(again.url, {}, True, None, None)
            response = session.send(again, timeout=(CONNECT, STALL), **settings)
            if response.status_code in range(400, 500):
                raise LinkRefusal(response.status_code)
            response.raise_for_status()
            whole = response.status_code != requests.codes.partial_content
            _save(response, Path(path), 0 if whole else have, total, name)
    return {"bytes": Path(path).stat().st_size}


def _already_there(path: Path, headers: Mapping[str, str], total: int) -> int:
    """How many bytes of the file are there; what is there of another one is removed."""
    note = path.with_name(f"{path.name}.etag")
    identity = f"{headers.get('ETag') or headers.get('Last-Modified') or ''} {total}"
    if path.is_file() and note.is_file() and note.read_text() == identity and path.stat().st_size <= total:
        return path.stat().st_size
    path.unlink(missing_ok=True)
    note.write_text(identity)
    return 0


def _save(response: Any, path: Path, have: int, total: int, name: str) -> None:
    """Append the body of an answer to the first ``have`` bytes of a file."""
    bar = tqdm(
        total=total, initial=have, unit="B", unit_scale=True, unit_divisor=1024, desc=name, disable=None, leave=False
    )
    with bar, path.open("ab") as file:
        file.truncate(have)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _authenticated() -> Any:
    """Kaggle's client, signed in; the import alone signs in already, but keeps most failures to itself.

    Raises:
        UnreadableCredentials: kaggle.json for example is cut, or no JSON.
    """
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi

        api = KaggleApi()
        api.authenticate()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableCredentials from error
    return api


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call for call in (submissions, allowance, push, files, download)
}


def answer(call: str, arguments: dict[str, str]) -> Answer:
    """Make a call; an error becomes an answer too."""
    try:
        return {"result": CALLS[call](**arguments)}
    except SystemExit:
        return {"error": "credentials", **_credentials()}
    except StorageRefusal as refusal:
        return {"error": "storage", "status": refusal.args[0]}
    except ImportError as error:
        return {"error": "missing", "reason": error.name or str(error)}
    except LinkRefusal as refusal:
        return {"error": "link", "status": refusal.args[0]}
    except Exception as error:
        return _described(error, arguments.get("path", ""))


def _described(error: Exception, written: str) -> Answer:
    """What to tell of an error, and nothing secret; ``written`` is the file that the call writes."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        if error.response.history:
            return {"error": "link", "status": error.response.status_code}
        return {"error": "http", **_http_error(error.response), **_credentials()}
    if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
        return {"error": "network", "reason": _network_reason(repr(error))}
    if isinstance(error, OSError) and error.errno and not isinstance(error, requests.RequestException):
        return {"error": "disk", "reason": os_reason(error), "file": str(error.filename or written)}
    kind = "unforeseen"
    if isinstance(error, UnreadableCredentials | requests.exceptions.InvalidHeader | UnicodeEncodeError):
        kind = "unreadable"  # a header is of two lines, or of letters that it cannot have, where a token is
    elif isinstance(error, ValueError | KeyError | TypeError | AttributeError):
        kind = "answer"
    return {"error": kind, "reason": type(error).__name__}


def _network_reason(text: str) -> str:
    """A connection's failure in words, from the name of its cause."""
    for sign, reason in (
        ("SSLError", "the certificate is not trusted; see the clock and REQUESTS_CA_BUNDLE"),
        ("NameResolution", "the name of Kaggle's server is not found"),
        ("reset", "the connection was reset"),
        ("RemoteDisconnected", "the connection was closed without an answer"),
        ("IncompleteRead", "the connection broke off"),
        ("ProxyError", "the proxy does not answer or refuses; see https_proxy"),
        ("refused", "the connection was refused"),
        ("Timeout", "the connection stood still"),
    ):
        if sign in text:
            return reason
    return "the connection failed"


def _http_error(response: Any) -> Answer:
    """Status, server's message and wait of an HTTP error; Kaggle may put the status into the body."""
    status, message = int(response.status_code), ""
    with suppress(ValueError, AttributeError, TypeError):
        body = response.json()
        message = str(body.get("message") or body.get("error") or "")
        status = int(body.get("code") or status) if status < 400 else status
    return {
        "status": status,
        "message": _scrubbed(" ".join(message.split()))[:300],
        "retry_after": _seconds(response.headers.get("Retry-After")),
    }


def _seconds(retry_after: str | None) -> float:
    """Retry-After, a number of seconds or a date, as seconds from now."""
    if not retry_after:
        return 0.0
    with suppress(ValueError):
        return max(0.0, float(retry_after))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return 0.0


def _credentials() -> Answer:
    """Where credentials come from, by name only."""
    token, source = _token()
    config = _config()
    keys = "KAGGLE_KEY" if "KAGGLE_KEY" in os.environ else "kaggle.json"
    return {
        "token": ("~/.kaggle/access_token" if source == "access_token" else source) if token else None,
        "keys": keys if "username" in config and "key" in config else None,
    }


def _token() -> tuple[str | None, str | None]:
    from kagglesdk.kaggle_env import get_access_token_from_env

    token, source = get_access_token_from_env()
    return token, source


def _config() -> dict[str, str]:
    from kaggle.api.kaggle_api_extended import KaggleApi

    api = KaggleApi()
    config: dict[str, str] = api.read_config_environment(api.read_config_file(quiet=True))
    return config


def _scrubbed(text: str) -> str:
    """A text without credentials, without what follows ? in an address, without a proxy's password."""
    secrets = [_token()[0], _config().get("key"), _config().get("token")]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return re.sub(r"//[^/\s@]+@", "//", re.sub(r"\?\S+", "?***", text))


def _end_with_the_parent(lifeline: int) -> None:
    """End at once when the other end of a pipe closes: an upload must not outlive the command that began it."""
    os.read(lifeline, 1)
    os._exit(1)


def main() -> NoReturn:
    """Answer the request on standard input; the argument is the number of the pipe to the parent."""
    threading.Thread(target=_end_with_the_parent, args=(int(sys.argv[1]),), daemon=True).start()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    logging.lastResort = None  # urllib3 warns on standard error, with signed addresses
    request = json.loads(sys.stdin.readline())
    json.dump(answer(request["call"], request["arguments"]), out)
    out.flush()
    os._exit(0)  # no thread of the client holds us back


if __name__ == "__main__":
    main()
