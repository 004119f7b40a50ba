"""One call to Kaggle, in a process of its own: the only module that imports ``kaggle``.

``client.py`` starts this process, writes the request as one line of JSON to its standard input, and reads the reply
as JSON from its standard output. There are two reasons for the process. Kaggle's client has no timeouts, but a
process can be killed. The client prints signed URLs and request headers, but the output of this process is discarded.

A reply is ``{"result": ...}`` or ``{"error": ...}`` with the arguments of a KaggleError. It contains no secrets:
credentials are masked, and URLs lose their query.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from tqdm import tqdm

from competition.command import os_reason
from competition.kaggle.credentials import KEY, KEY_FILE, TOKEN_FILE
from competition.kaggle.errors import (
    NO_CREDENTIALS,
    PAGE,
    UNREADABLE_CREDENTIALS,
    Credentials,
    KaggleError,
    http_error,
    link_error,
    network_error,
    rejected_credentials,
    unreadable_reply,
    upload_error,
)
from competition.kaggle.replies import Replies, content_length, field

COMPETITION = "carvana-image-masking-challenge"
PAGE_SIZE = 100
CHUNK = 1 << 18  # bytes; a broken connection loses at most one chunk
CONNECT_SECONDS, READ_SECONDS = 30, 60  # timeouts of a download; the caller limits the whole call

Reply = dict[str, Any]


class StorageStatus(logging.Handler):
    """The HTTP status of an upload, which Kaggle's client does not return but urllib3 logs."""

    status: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Read the status from urllib3's record of a PUT request: (scheme, host, port, method, ...)."""
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) == 8 and arguments[3] == "PUT":
            self.status = int(str(arguments[6]))


def submissions() -> list[Reply]:
    """Every submission of the team, as in Kaggle's JSON."""
    api, replies = _authenticated()
    from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

    with api.build_kaggle_client() as client:
        request = ApiListSubmissionsRequest()
        request.competition_name = COMPETITION
        request.page_size = PAGE_SIZE
        service = client.competitions.competition_api_client
        listed = replies.listed(request, service.list_submissions, "submissions")
        return list({int(field(each, "ref")): each for each in listed}.values())


def allowance() -> Reply:
    """The number of submissions made today, made in total, and allowed now."""
    api, _ = _authenticated()
    limits = api.competition_get_submission_limits(COMPETITION)
    return {"today": limits.num_today, "total": limits.num_total, "left": limits.num_allowed_now}


def push(file: str, description: str) -> int:
    """Upload and submit a file; returns the ref of the submission, 0 if Kaggle returned none."""
    api, _ = _authenticated()
    with _storage_status() as storage:
        response = api.competition_submit(file, description, COMPETITION, quiet=not sys.stderr.isatty())
    if response.ref <= 0 and response.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
        raise upload_error(storage.status)
    return int(response.ref)


def files() -> dict[str, int]:
    """The competition's files: name to size in bytes."""
    api, replies = _authenticated()
    from kagglesdk.competitions.types.competition_api_service import ApiListDataFilesRequest

    with api.build_kaggle_client() as client:
        request = ApiListDataFilesRequest()
        request.competition_name = COMPETITION
        request.page_size = PAGE_SIZE
        listed = replies.listed(request, client.competitions.competition_api_client.list_data_files, "files")
        return {str(field(each, "name")): int(field(each, "totalBytes")) for each in listed}


def download(name: str, path: str, size: str) -> None:
    """Download one file of the competition, or the rest of it if the beginning is there already.

    Kaggle's client only provides the link, a new one for each call. Its own download is not used: if the link has
    expired, it writes the text of the error into the file. What has another size than the file is not written either.
    """
    api, _ = _authenticated()
    import requests
    from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFileRequest

    with api.build_kaggle_client() as client, requests.Session() as session:
        request = ApiDownloadDataFileRequest()
        request.competition_name = COMPETITION
        request.file_name = name
        linked = client.competitions.competition_api_client.download_data_file(request)
        linked.close()  # requested again below, with an offset and timeouts
        total = content_length(linked, name, int(size))
        offset = _resume_offset(Path(path), linked.headers, total)
        if offset == total:
            return
        ranged = linked.request.copy()
        ranged.headers.update({"Range": f"bytes={offset}-", "Accept-Encoding": "identity"})
        settings = session.merge_environment_settings(ranged.url, {}, True, None, None)
        response = session.send(ranged, timeout=(CONNECT_SECONDS, READ_SECONDS), **settings)
        if response.status_code in range(400, 500):
            raise link_error(response.status_code)
        response.raise_for_status()
        start = offset if response.status_code == requests.codes.partial_content else 0
        content_length(response, name, total - start)
        _save(response, Path(path), start, total, name)


CALLS: dict[str, Callable[..., Any]] = {
    call.__name__: call for call in (submissions, allowance, push, files, download)
}


def _resume_offset(path: Path, headers: Mapping[str, str], total: int) -> int:
    """The number of bytes that are there already; the beginning of another file is removed."""
    etag = path.with_name(f"{path.name}.etag")
    identity = f"{headers.get('ETag') or headers.get('Last-Modified') or ''} {total}"
    if path.is_file() and etag.is_file() and etag.read_bytes() == identity.encode() and path.stat().st_size <= total:
        return path.stat().st_size
    path.unlink(missing_ok=True)
    etag.write_bytes(identity.encode())
    return 0


def _save(response: Any, path: Path, offset: int, total: int, name: str) -> None:
    """Write the body of a response to a file from an offset on."""
    bar = tqdm(
        total=total,
        initial=offset,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        desc=name,
        disable=None,
        leave=False,
    )
    with bar, path.open("ab") as file:
        file.truncate(offset)
        for chunk in response.iter_content(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


@contextmanager
def _storage_status() -> Iterator[StorageStatus]:
    log = logging.getLogger("urllib3.connectionpool")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    storage = StorageStatus()
    log.addHandler(storage)
    try:
        yield storage
    finally:
        log.removeHandler(storage)


def _authenticated() -> tuple[Any, Replies]:
    """Kaggle's client, signed in, and the replies to it. The import signs in too, but hides most errors."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    api, replies = KaggleApi(), Replies()
    api.get_response_processor = lambda: replies
    try:
        api.authenticate()
    except (AttributeError, KeyError) as error:  # the file of `kaggle auth login` is damaged, for example
        raise KaggleError(UNREADABLE_CREDENTIALS) from error
    return api, replies


def reply_to(call: str, arguments: dict[str, str]) -> Reply:
    """Make a call; an error is returned, not raised."""
    try:
        return {"result": CALLS[call](**arguments)}
    except KaggleError as raised:
        error = raised
    except SystemExit:  # from ``authenticate``
        credentials = _credentials()
        error = KaggleError(rejected_credentials(credentials) if credentials.token else NO_CREDENTIALS)
    except ImportError as raised:
        error = KaggleError(f"the Python package {raised.name or raised} is missing; make setup installs it")
    except Exception as raised:
        error = _kaggle_error(raised, call, arguments.get("path", ""))
    return {"error": {"message": str(error), **vars(error)}}


def _kaggle_error(error: Exception, call: str, path: str) -> KaggleError:
    """The KaggleError for an exception of the client in a call; ``path`` is the file that the call writes."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _status_error(error.response, call)
    if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
        return network_error(repr(error))
    if isinstance(error, OSError) and error.errno and not isinstance(error, requests.RequestException):
        return KaggleError(f"cannot write {error.filename or path}: {os_reason(error)}")
    name = type(error).__name__
    if isinstance(error, ValueError | KeyError | TypeError | AttributeError):
        return unreadable_reply(name)
    return KaggleError(f"unexpected error in Kaggle's client ({name}); see {PAGE}")


def _status_error(response: Any, call: str) -> KaggleError:
    """The error for a failed response to a call; Kaggle may give the status and a message in the body."""
    if response.history and call == "download":  # Kaggle leads to the storage
        return link_error(response.status_code)
    if response.history:
        return unreadable_reply(f"it leads to {urlsplit(response.url).hostname}")
    status, message = int(response.status_code), ""
    with suppress(ValueError, AttributeError, TypeError):
        body = response.json()
        message = str(body.get("message") or body.get("error") or "")
        status = int(body.get("code") or status) if status < 400 else status
    message = _without_secrets(" ".join(message.split()))[:300]
    return http_error(status, message, _seconds(response.headers.get("Retry-After")), _credentials())


def _seconds(retry_after: str | None) -> float:
    """Retry-After, which is a number of seconds or a date, in seconds from now."""
    if not retry_after:
        return 0.0
    with suppress(ValueError):
        return max(0.0, float(retry_after))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return 0.0


def _credentials() -> Credentials:
    token, token_source = _token()
    token_source = os.environ.get(TOKEN_FILE) or token_source
    key_source = os.environ.get(KEY_FILE) or (KEY if KEY in os.environ else "kaggle.json")
    has_key = {"username", "key"} <= _config().keys()
    return Credentials(token_source if token else None, key_source if has_key else None)


def _token() -> tuple[str | None, str | None]:
    """The token, and the name of the variable or file that it comes from."""
    from kagglesdk.kaggle_env import get_access_token_from_env

    token, source = get_access_token_from_env()
    return token, source


def _config() -> dict[str, str]:
    """kaggle.json, overridden by KAGGLE_USERNAME and KAGGLE_KEY."""
    from kaggle.api.kaggle_api_extended import KaggleApi

    api = KaggleApi()
    config: dict[str, str] = api.read_config_environment(api.read_config_file(quiet=True))
    return config


def _without_secrets(text: str) -> str:
    """A text without credentials, without the query of a URL, without the password of a proxy."""
    secrets = [_token()[0], _config().get("key"), _config().get("token")]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return re.sub(r"//[^/\s@]+@", "//", re.sub(r"\?\S+", "?***", text))


def _exit_with_parent(pipe: int) -> None:
    """Exit when the other end of a pipe closes, so that an upload does not outlive the command that started it."""
    os.read(pipe, 1)
    os._exit(1)


def main() -> NoReturn:
    """Reply to the request on standard input; the argument is the number of the pipe to the parent process."""
    threading.Thread(target=_exit_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    logging.lastResort = None  # urllib3 would warn on standard error, with signed URLs
    request = json.loads(sys.stdin.readline())
    json.dump(reply_to(request["call"], request["arguments"]), out)
    out.flush()
    os._exit(0)  # does not wait for the client's threads


if __name__ == "__main__":
    main()
