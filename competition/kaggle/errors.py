"""KaggleError, and the message for each kind of error that a call to Kaggle can end in."""

from dataclasses import dataclass

from competition.command import Failure

PAGE = "https://www.kaggle.com/competitions/carvana-image-masking-challenge"
TOKENS = "https://www.kaggle.com/settings/api"
NO_CREDENTIALS = (
    f"no Kaggle credentials found; create a token on {TOKENS} and save it in KAGGLE_API_TOKEN or "
    "~/.kaggle/access_token, or set KAGGLE_USERNAME and KAGGLE_KEY (or ~/.kaggle/kaggle.json), or run "
    "`kaggle auth login`"
)
UNREADABLE_CREDENTIALS = (
    "the Kaggle credentials in ~/.kaggle/credentials.json cannot be read; run `kaggle auth login` again, or create a "
    f"token on {TOKENS}"
)


class KaggleError(Failure):
    """A call to Kaggle failed.

    Attributes:
        retry: the same call may succeed in a moment.
        pause: seconds that Kaggle asks to wait before the next attempt.
        transient: the network or the server is the cause; always true if ``retry`` is.
        unsubmitted: it is certain that a push submitted nothing.
    """

    def __init__(
        self,
        message: str,
        retry: bool = False,
        pause: float = 0.0,
        transient: bool = False,
        unsubmitted: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.pause = pause
        self.transient = transient or retry
        self.unsubmitted = unsubmitted


@dataclass(frozen=True)
class Credentials:
    """Where Kaggle's client finds credentials: the name of a variable or file, None if there is none."""

    token: str | None
    key: str | None


def http_error(status: int, message: str, pause: float, credentials: Credentials) -> KaggleError:
    """The error for an HTTP status of Kaggle's API; ``message`` is the server's, ``pause`` its Retry-After."""
    detail = f"{status}: {message.rstrip('.')}" if message else str(status)
    if status == 401:
        return KaggleError(rejected_credentials(credentials))
    if status == 403:
        return KaggleError(
            f"Kaggle denied access ({detail}); accept the rules on {PAGE}/rules, and verify your phone on "
            "https://www.kaggle.com/settings"
        )
    if status == 404:
        return KaggleError(f"Kaggle did not find this ({detail}); check that {PAGE} opens in a browser")
    if status == 429:
        return KaggleError(f"too many requests to Kaggle (429), which asks to wait {pause:.0f} s", True, pause)
    if status >= 500:
        return KaggleError(f"Kaggle has a server error ({detail})", True, pause)
    return KaggleError(f"Kaggle rejected the request ({detail}); see {PAGE}")


def rejected_credentials(credentials: Credentials) -> str:
    """What to do if Kaggle rejects the credentials."""
    token, key = credentials.token, credentials.key
    if token and key:
        return (
            f"Kaggle rejected the token from {token}, which takes precedence over the key from {key}; remove the "
            f"token, or replace it by a new one from {TOKENS}"
        )
    if token:
        return f"Kaggle rejected the token from {token}; replace it by a new one from {TOKENS}"
    if key:
        return f"Kaggle rejected the user name and key from {key} (401); replace them by a new token from {TOKENS}"
    return f"Kaggle rejected the login (401); run `kaggle auth login`, or create a token on {TOKENS}"


def upload_error(status: int | None) -> KaggleError:
    """The error for a failed upload; ``status`` is the storage's, None if the connection broke."""
    if status is None or status == 429 or status >= 500:
        cause = f"Kaggle's storage returned {status}" if status else "the connection broke"
        return KaggleError(f"the upload failed ({cause}), nothing was submitted", retry=True, unsubmitted=True)
    return KaggleError(
        f"Kaggle's storage rejected the upload ({status}), nothing was submitted; run the same command again to get "
        "a new upload link",
        unsubmitted=True,
    )


def link_error(status: int) -> KaggleError:
    """The error for a download link that the storage rejects, most likely because it has expired."""
    return KaggleError(f"Kaggle's storage rejected the download link ({status}); a new link is needed", retry=True)


def unreadable_reply(reason: str) -> KaggleError:
    """The error for a reply that is not Kaggle's: what it says is unknown, not empty."""
    return KaggleError(
        f"Kaggle's reply cannot be read ({reason}); check whether a proxy or a login page replies instead: open "
        f"{PAGE} in a browser",
        retry=True,
    )


def network_error(description: str) -> KaggleError:
    """The error for a failed connection; the cause is recognized by the names in the exception's ``repr``."""
    for sign, reason in (
        ("SSLError", "the certificate is not trusted; check the clock and REQUESTS_CA_BUNDLE"),
        ("NameResolution", "the name of Kaggle's server was not found"),
        ("reset", "the connection was reset"),
        ("RemoteDisconnected", "the connection was closed without a reply"),
        ("IncompleteRead", "the connection broke"),
        ("ProxyError", "the proxy does not reply or rejects the connection; check https_proxy"),
        ("refused", "the connection was refused"),
        ("Timeout", "the connection timed out"),
    ):
        if sign in description:
            return KaggleError(f"cannot reach Kaggle: {reason}", retry=True)
    return KaggleError("cannot reach Kaggle: the connection failed", retry=True)
