"""JSON over HTTP to Prefect: tries, pauses and one deadline over all of them.

`adapters/prefect_api.py` knows Prefect's addresses; urllib3 sends. A request whose outcome is
unknown is sent again unless the caller says otherwise: reads and PATCHes are idempotent, and a log
line, an artifact or an event may be stored twice. An answer that says *not now* (429, 503) had no
effect: any request is sent again when the server has had the time that it asks for.
"""

import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final
from urllib.parse import urlencode, urlsplit

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import Timeout

from chalicelib.adapters import prefect_bounds as bounds
from chalicelib.adapters.connections import Connections as Connections
from chalicelib.adapters.credentials import joined, without
from chalicelib.adapters.prefect_errors import (
    CHECK_API_URL,
    CHECK_CERTIFICATES,
    WAIT_OR_CHECK,
    is_about_csrf,
    refusal,
)
from chalicelib.errors import (
    PrefectAddressError,
    PrefectOutcomeUnknownError,
    PrefectRejectedError,
    PrefectTimeoutError,
    PrefectUnavailableError,
    PrefectUnreadableError,
)

MOST_TRIES: Final = 6
"""Of a request that fails otherwise than by an answer that says *not now*."""
ANSWERED_WITHIN: Final = 15.0
"""Seconds in which an answer has to be whole."""
_TRANSIENT: Final = {
    429: PrefectUnavailableError,
    503: PrefectUnavailableError,
    408: PrefectTimeoutError,
    504: PrefectTimeoutError,
    502: PrefectOutcomeUnknownError,
}
"""What a passing status means for a request that must not be repeated; 429 and 503: *not now*."""
_LEAST_SECONDS: Final = 0.02
_LONGEST_DETAIL: Final = 300

Authorization = Callable[[bool], str | None]
"""Returns the Authorization header's value, None for none; True asks for a fresh one."""


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: bytes | None
    repeatable: bool = True
    page_seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class _Answer:
    """One that another try would not change: JSON or None, Prefect's message, whether a page."""

    status: int
    body: object
    detail: str
    is_page: bool


@dataclass(frozen=True, slots=True)
class _Failure:
    """A try that failed for a transient reason; `retry_after` is the server's wish, in seconds.

    `error`: what that means for a request that must not be repeated. `not_now`: the server answered
    so, and did nothing. `is_final`: another try would get the same answer. `is_dropped`: there was
    none; after a 500 Prefect hangs up, which only the next request on that connection meets.
    """

    reason: str
    error: type[PrefectUnavailableError] = PrefectOutcomeUnknownError
    retry_after: float = 0.0
    not_now: bool = False
    is_final: bool = False
    is_dropped: bool = False
    next_step: str = WAIT_OR_CHECK


class JsonHttp:
    """Requests to one base URL, over connections that are kept alive. Safe to share by threads.

    urllib3's own retries are not used: a try's timeout has to shrink with the time left, and an
    answer that is no JSON counts as none. Its parser of dates in Retry-After is.
    """

    def __init__(
        self,
        base_url: str,
        authorization: Authorization,
        deadline: Callable[[], float],
        *,
        connections: Connections | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`deadline`: the seconds left; pauses count against what it says when a request begins.

        `connections`: to the host of `base_url`, to be kept.
        """
        self._base_path = urlsplit(base_url).path.rstrip("/")
        self._authorization = authorization
        self._deadline = deadline
        self._connections = connections or Connections(base_url)
        self._sleep = sleep

    def send(
        self,
        method: str,
        path: str,
        body: object,
        *,
        repeatable: bool = True,
        page_seconds: float | None = None,
    ) -> object:
        """Send `body` as JSON and return the decoded answer, None for an empty one.

        `repeatable`: whether to send it again when its outcome is unknown. `page_seconds`: it asks
        for a page, which has so many, and is sent again only after an answer that says *not now*,
        without a connection, or, once, after one that was dropped.

        Raises:
            PrefectUnavailableError: no useful answer within the tries and the seconds left.
            PrefectUnreadableError: Prefect failed over this request; see `chalicelib/errors.py`.
            PrefectOutcomeUnknownError: the answer to a request that is not `repeatable` was lost;
                PrefectTimeoutError when it timed out.
                PrefectNotNowError when it asked for more time than is left.
            PrefectRefusedError: 401 with a fresh credential too, or 403 with a fresh CSRF token;
                PrefectForbiddenError, another 403; PrefectPlanError, it is not in Cloud's plan.
            PrefectRejectedError: another 4xx; PrefectConflictError, 409; PrefectAddressError, 404
                or 405 or a redirect.
        """
        content = json.dumps(body).encode()
        return self._authorized(_Request(method, path, content, repeatable, page_seconds)).body

    def get(self, path: str, **query: str) -> object:
        """Return the decoded answer, None for a thing that is not there (404); raises as `send`."""
        request = _Request("GET", f"{path}?{urlencode(query)}" if query else path, None)
        answer = self._authorized(request)
        if answer.status == 404:
            self._confirm()
            return None
        if answer.body is None:
            what = f"Prefect's answer to {request} is empty"
            raise PrefectUnavailableError(what, next_step=CHECK_API_URL)
        return answer.body

    def _authorized(self, request: _Request) -> _Answer:
        """Send; once more with what is fresh after a 401, and with a CSRF token if that is asked.

        And with fresh custom headers, where those differ, after the answers by which proxies keep
        one out: 403, or a redirect to a page to log in. The answer is 2xx, or a GET's 404.
        """
        shared, once = self._connections, {301, 302, 303, 307, 308, 401, 403}
        own, csrf, custom = self._authorization(False), shared.csrf, shared.headers(False)
        while (answer := self._answered(request, joined(own, custom), csrf)).status in once:
            once.remove(answer.status)
            if is_about_csrf(answer.status, answer.detail):
                if request.body is None:
                    break
                csrf = self._renewed(csrf)
                continue
            before, custom = custom, shared.headers(True) if custom else custom
            if answer.status == 401:
                own = self._authorization(True)
            elif custom == before:
                break
        if 200 <= answer.status < 300 or (answer.status == 404 and request.method == "GET"):
            return answer
        is_page, repeatable, said = answer.is_page, request.repeatable, answer.detail
        raise refusal(str(request), answer.status, said, repeatable=repeatable, is_page=is_page)

    def _confirm(self) -> None:
        """Raise PrefectAddressError unless work pools are served, as by every Prefect API.

        A mistyped base URL must not look like a run that is gone, and what a 404 says about that
        differs between servers, Prefect Cloud, and proxies before them. Once per connections.
        """
        if not self._connections.is_prefect:
            try:
                found = self.send("POST", "/work_pools/filter", {"limit": 1})
            except PrefectRejectedError as error:
                raise PrefectAddressError(error.what, CHECK_API_URL) from None
            if not isinstance(found, list):
                what = "Prefect's answer to a search for work pools is no list"
                raise PrefectAddressError(what, CHECK_API_URL)
            self._connections.is_prefect = True

    def _renewed(self, refused: Mapping[str, str]) -> Mapping[str, str]:
        """Return other CSRF headers than those refused; empty where the server has no token."""
        shared = self._connections
        with shared.lock:
            if shared.csrf is refused:  # otherwise another thread has renewed them
                answer = None
                with suppress(PrefectRejectedError):  # 422: the protection was switched off
                    path = f"/csrf-token?client={shared.client}"
                    answer = self._authorized(_Request("GET", path, None)).body
                token = answer.get("token") if isinstance(answer, Mapping) else None
                headers = {"Prefect-Csrf-Token": str(token), "Prefect-Csrf-Client": shared.client}
                shared.csrf = headers if token else {}
            return shared.csrf

    def _answered(
        self, request: _Request, access: Mapping[str, str], csrf: Mapping[str, str]
    ) -> _Answer:
        given, waited, failures = self._deadline(), 0.0, 0
        not_before = self._connections.not_before
        if not_before and (waited := not_before.wait_seconds(str(request), given - _LEAST_SECONDS)):
            self._sleep(waited)
        for attempt in count(1):
            result = self._try(request, access, csrf)
            if isinstance(result, _Answer):
                return result
            failure, step = f"{request}: {result.reason} (try {attempt})", result.next_step
            failures += not result.not_now
            error = PrefectUnavailableError if request.repeatable else result.error
            is_page_lost = request.page_seconds and result.error is not PrefectUnavailableError
            is_page_lost = is_page_lost and failures > result.is_dropped
            if request.repeatable and (is_page_lost or result.is_final):
                error = PrefectUnreadableError
            if failures == MOST_TRIES or error is not PrefectUnavailableError:
                break
            pause = _pause_seconds(attempt, result.retry_after)
            left = min(self._deadline(), given - waited)
            if pause + _LEAST_SECONDS >= left:
                if result.retry_after and (not_before := self._connections.not_before):
                    raise not_before.put(result.retry_after, without(access, failure))
                failure += f"; next try in {pause:.1f} s, but {max(left, 0.0):.1f} s are left"
                break
            self._sleep(pause)
            waited += pause
        what = f"Prefect is unavailable: {without(access, failure)}"
        raise error(what, step)

    def _try(
        self, request: _Request, access: Mapping[str, str], csrf: Mapping[str, str]
    ) -> _Answer | _Failure:
        left = self._deadline()
        if left < _LEAST_SECONDS:
            what = f"{request} was not sent: the request deadline passed"
            raise PrefectUnavailableError(what, next_step=WAIT_OR_CHECK)
        # No X-PREFECT-API-VERSION: a server takes its absence for its own version, and refuses all
        # requests that name one below its minimum. No User-Agent of Prefect's either: from that,
        # the server infers abilities (lease renewal) that we do not have.
        headers = {"Accept": "application/json", "User-Agent": "prefect-spot"}
        if request.body is not None:
            headers |= {"Content-Type": "application/json", **csrf}
        seconds, pool = request.page_seconds or ANSWERED_WITHIN, self._connections.pool()
        try:
            response = pool.urlopen(
                request.method,
                self._base_path + request.path,
                body=request.body,
                headers={**headers, **access},
                retries=False,
                redirect=False,
                preload_content=False,
                timeout=Timeout(total=left, connect=3.0, read=seconds),
            )
            content = bounds.read_body(response)
        except (HTTPError, bounds.OutOfBoundsError) as error:
            untrusted = error.args[0] if isinstance(error, SSLError) else None
            if isinstance(untrusted, ssl.SSLCertVerificationError):
                if self._connections.pool(fresh=True) is not pool:
                    return self._try(request, access, csrf)
                why = f"the server's certificate is not trusted ({untrusted.verify_message})"
                what = f"{request} was not sent: {why}"
                raise PrefectUnavailableError(what, CHECK_CERTIFICATES) from None
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, NewConnectionError | ConnectTimeoutError):
                return _Failure(reason, PrefectUnavailableError)
            if isinstance(error, ReadTimeoutError):
                return _Failure(reason, PrefectTimeoutError)
            return _Failure(reason, is_dropped=True)
        return _meaning(response, content, access)


def _meaning(
    response: BaseHTTPResponse, content: bytes | bounds.OutOfBoundsError, access: Mapping[str, str]
) -> _Answer | _Failure:
    reason = f"answered {response.status}"
    if meaning := _TRANSIENT.get(response.status):
        wait = bounds.retry_after_seconds(response)
        reason += f", asking for {wait:.0f} s" if wait else ""
        return _Failure(reason, meaning, wait, not_now=meaning is PrefectUnavailableError)
    is_page = False
    try:
        body = bounds.read_json(content)
    except ValueError as error:
        is_final, body, is_page = isinstance(error, bounds.OutOfBoundsError), None, True
        if 200 <= response.status < 300:
            step = WAIT_OR_CHECK if is_final else CHECK_API_URL  # a UI has a page
            return _Failure(f"{reason} with {error}", is_final=is_final, next_step=step)
    redirection = response.headers.get("Location") if 300 <= response.status < 400 else None
    detail = f"redirects to {redirection}" if redirection else bounds.message_of(body)
    detail = without(access, detail)[:_LONGEST_DETAIL]
    return _Answer(response.status, body, detail, is_page)


def _pause_seconds(attempt: int, retry_after: float) -> float:
    """As the server asks; otherwise exponential, up to 5 s. Jitter spreads the functions' tries."""
    longest = 0.2 if retry_after else min(5.0, 0.2 * 2.0 ** min(attempt - 1, 5))
    return retry_after + longest * random.uniform(0.5, 1.0)
