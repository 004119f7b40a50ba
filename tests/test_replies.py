"""Replies that are not Kaggle's: a proxy or a login page replies to the real client, with status 200."""

from pathlib import Path

import pytest
from kaggle_server import LOGIN, TOKEN, Fault, KaggleServer

from competition.kaggle.client import Allowance, Kaggle, RetryPolicy
from competition.kaggle.errors import KaggleError

pytestmark = pytest.mark.usefixtures("in_process")
PAGE = b"<html>Log in</html>"
JSON = {"Content-Type": "application/json"}
REDIRECT = Fault(302, body=b"", headers={"Location": f"{LOGIN}/?next=secret"})
# Replies to any call, with what the message says.
FOREIGN = {
    "page": (Fault(body=PAGE), "it is a web page"),
    "page called JSON": (Fault(body=PAGE, headers=JSON), "JSONDecodeError"),
    "redirect": (REDIRECT, "it leads to login.invalid"),
    "nothing": (Fault(body=b""), "no JSON"),
    "null": (Fault(body=b"null"), "it is not a JSON object"),
    "list": (Fault(body=b"[]", headers=JSON), "it is not a JSON object"),
}
NO_LIST = FOREIGN | {
    "no key": (Fault(body=b'{"message": "Please log in"}', headers=JSON), "it has no `submissions`"),
    "null called JSON": (Fault(body=b"null", headers=JSON), "it is not a JSON object"),
    "key null": (Fault(body=b'{"submissions": null}'), "`submissions` is not a list"),
    "key text": (Fault(body=b'{"submissions": "none"}'), "`submissions` is not a list"),
    "entry null": (Fault(body=b'{"submissions": [null]}'), "`submissions` is not a list"),
    "entry without ref": (Fault(body=b'{"submissions": [{"description": "first"}]}'), "an entry has no `ref`"),
}


@pytest.fixture
def kaggle(server: KaggleServer) -> Kaggle:
    server.submissions = [{"ref": ref, "description": f"number {ref}", "listed": 0} for ref in range(5, 0, -1)]
    server.files = {f"{number}.zip": bytes(number) for number in range(1, 6)}
    return Kaggle(RetryPolicy(deadline=60, attempts=2, pause=0.01), log=lambda line: None)


def error_of(call: object) -> KaggleError:
    assert callable(call)
    with pytest.raises(KaggleError) as raised:
        call()
    return raised.value


@pytest.mark.parametrize(("fault", "reason"), NO_LIST.values(), ids=NO_LIST)
@pytest.mark.parametrize("page", [1, 2])
def test_only_a_list_is_a_list(server: KaggleServer, kaggle: Kaggle, fault: Fault, reason: str, page: int) -> None:
    server.faults = {"ListSubmissions": [*([Fault()] * (page - 1)), fault] * 2}
    error = error_of(kaggle.submissions)
    expected = (
        f"Kaggle's reply cannot be read ({reason}); check whether a proxy or a login page replies instead: open"
    )
    assert str(error).startswith(expected)
    assert str(error).endswith(" in a browser, after 2 attempts; run the same command again later")
    assert (error.transient, error.unsubmitted) == (True, False)
    assert len(kaggle.submissions()) == 5


@pytest.mark.parametrize("login", [b"{}", b'{"submissions": []}'])
def test_what_a_redirect_leads_to_is_no_list(server: KaggleServer, kaggle: Kaggle, login: bytes) -> None:
    server.login = login
    server.faults = {"ListSubmissions": [REDIRECT, ...]}
    assert "(it leads to login.invalid)" in str(error_of(kaggle.submissions))


@pytest.mark.parametrize("body", [b"{}", b'{"submissions": []}', b'{"submissions": [], "nextPageToken": ""}'])
def test_an_empty_list(server: KaggleServer, kaggle: Kaggle, body: bytes) -> None:
    server.faults = {"ListSubmissions": [Fault(body=body, headers=JSON)]}
    assert kaggle.submissions() == []


def test_a_list_without_end(server: KaggleServer, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaggle_server.page_of", lambda items, first, size: (items, "0"))
    for call in (kaggle.submissions, kaggle.files):
        assert "(the list has no end)" in str(error_of(call))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        *FOREIGN.values(),
        (Fault(body=b"{}"), "it has no `files`"),
        (Fault(body=b'{"files": {}}'), "`files` is not a list"),
        (Fault(body=b'{"files": [{"totalBytes": 1}]}'), "an entry has no `name`"),
        (Fault(body=b'{"files": [{"name": "train.zip"}]}'), "an entry has no `totalBytes`"),
    ],
)
def test_the_list_of_files(server: KaggleServer, kaggle: Kaggle, fault: Fault, reason: str) -> None:
    server.faults = {"ListDataFiles": [Fault(), fault, fault]}
    assert f"({reason})" in str(error_of(kaggle.files))
    server.faults = {}
    assert kaggle.files() == {f"{number}.zip": number for number in range(1, 6)}


@pytest.mark.parametrize(
    ("fault", "reason"), [*FOREIGN.values(), (Fault(body=b'{"message": "Log in"}'), "it has no `numAllowedNow`")]
)
def test_the_allowance(server: KaggleServer, kaggle: Kaggle, fault: Fault, reason: str) -> None:
    server.faults = {"GetSubmissionLimits": [fault, fault, Fault(body=b"{}")]}
    assert f"({reason})" in str(error_of(kaggle.allowance))
    assert kaggle.allowance() == Allowance(0, 0, 0)  # before a team's first submission


@pytest.mark.parametrize(("fault", "reason"), FOREIGN.values(), ids=FOREIGN)
def test_the_check_of_a_token(
    server: KaggleServer, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch, fault: Fault, reason: str
) -> None:
    """A token is not called wrong, or unreadable, because a proxy replies."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    server.faults = {"IntrospectToken": [fault, ...]}
    assert f"({reason})" in str(error_of(kaggle.submissions))


@pytest.mark.parametrize("call", ["StartSubmissionUpload", "CreateSubmission"])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_push(server: KaggleServer, kaggle: Kaggle, tmp_path: Path, call: str, name: str) -> None:
    file = tmp_path / "submission.csv.gz"
    file.write_bytes(b"masks")
    fault, reason = FOREIGN[name]
    server.faults = {call: [fault]}
    error = error_of(lambda: kaggle.push(file, "first"))
    assert f"({reason})" in str(error)
    assert (error.retry, error.unsubmitted) == (True, False)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"DownloadDataFile": [Fault(body=PAGE, headers={"Content-Type": "text/html"}), ...]}, "1,000,000"),
        ({"DownloadDataFile": [REDIRECT, ...]}, "1,000,000"),
        ({"file": [Fault(body=PAGE, headers={"Content-Type": "text/html"}), ...]}, "1,000,000"),
        ({"file": [REDIRECT, ...]}, "1,000,000"),
        ({"file": [Fault(206, body=PAGE, headers={"Content-Type": "text/html"}), ...]}, "475,712"),
    ],
)
def test_a_page_does_not_replace_the_beginning_of_a_download(
    server: KaggleServer, kaggle: Kaggle, tmp_path: Path, faults: dict[str, list[Fault]], expected: str
) -> None:
    path, content = tmp_path / "5.zip", bytes(range(250)) * 4000
    server.files = {"5.zip": content}
    server.faults = {"file": [Fault(after=600_000), *(Fault(403) for _ in range(5))]}
    error_of(lambda: kaggle.download("5.zip", len(content), path))
    there = path.stat().st_size
    assert there == 524_288  # whole chunks
    server.faults = dict(faults)
    message = str(error_of(lambda: kaggle.download("5.zip", len(content), path)))
    assert f"(it is a web page, not the {expected} bytes of 5.zip)" in message
    assert path.stat().st_size == there
    server.faults = {}
    kaggle.download("5.zip", len(content), path)
    assert path.read_bytes() == content
    assert server.starts[-1] == there
