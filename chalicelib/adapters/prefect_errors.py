"""What Prefect's refusals mean: each its own error, with its next step.

`adapters/prefect_client.py` raises them for an answer that another try would not change. How
Prefect Cloud words a refusal is not documented: its status decides, words only on plan and CSRF.
"""

import re
from typing import Final

from chalicelib.errors import (
    PrefectAddressError,
    PrefectConflictError,
    PrefectForbiddenError,
    PrefectOutcomeUnknownError,
    PrefectPlanError,
    PrefectRefusedError,
    PrefectRejectedError,
    PrefectSpotError,
    PrefectUnreadableError,
)

CHECK_API_URL: Final = "check PREFECT_API_URL: it has to be the address of Prefect's API"
"""The next step after an answer that no Prefect API returns."""
WAIT_OR_CHECK: Final = (
    "none if it passes; otherwise check the Prefect server, and the network path to PREFECT_API_URL"
)
CHECK_CERTIFICATES: Final = (
    "renew the server's certificate, or store those of the authority that signed it, in PEM, in the"
    " SSM parameter that PREFECT_CA_CERTIFICATE_PARAMETER names"
)
"""The next step where the server's certificate is not trusted."""
_PROXY: Final = (
    "store the headers that this proxy asks for in the SSM parameter that"
    " PREFECT_CUSTOM_HEADERS_PARAMETER names"
)
_KEY: Final = (
    "store a valid credential in the SSM parameter that PREFECT_API_KEY_PARAMETER or"
    " PREFECT_API_AUTH_STRING_PARAMETER names"
)
_ROLE: Final = (
    "check that PREFECT_API_URL names the credential's own workspace, and its permissions in"
    " Prefect: a service account's role has to be Developer or above"
)
_PLAN: Final = (
    "take a plan of Prefect Cloud that has hybrid work pools (Starter or above), or set"
    " PREFECT_API_URL to a server of your own"
)
_CSRF: Final = (
    "let Prefect's headers Prefect-Csrf-Token and Prefect-Csrf-Client pass every proxy, or switch"
    " the server's CSRF protection off"
)
_CORRECT: Final = "correct what Prefect names, such as the work pool's base job template"
_OF_PLANS: Final = re.compile(
    r"\b(upgrade|subscription|billing|paid|hybrid work pools?|(hobby|free) accounts?)\b"
    r"|\b(your|current|this|account|\w+'s|hobby|free|starter) (plan|tier)\b",
    re.IGNORECASE,
)


def is_about_csrf(status: int, detail: str) -> bool:
    """Whether a server refused a write for want of a valid CSRF token."""
    return status == 403 and "csrf" in detail.lower()


def refusal(
    request: str, status: int, detail: str, *, repeatable: bool, is_page: bool = False
) -> PrefectSpotError:
    """Return what an answer means. `request` in words; `detail`: Prefect's message, or empty.

    `is_page`: it is no JSON, and so another's than Prefect's.
    """
    who = "a proxy before Prefect" if is_page and status in (401, 403) else "Prefect"
    what = f"{who} answered {status} to {request}" + (f": {detail}" if detail else "")
    if is_about_csrf(status, detail):
        return PrefectRefusedError(what, _CSRF)
    if status >= 500:
        lost = PrefectUnreadableError if repeatable else PrefectOutcomeUnknownError
        return lost(what, WAIT_OR_CHECK)
    if status == 401:
        return PrefectRefusedError(what, _PROXY if is_page else _KEY)
    is_creation = request == "POST /work_pools/"  # elsewhere, words may be a user's
    if status == 402 or (is_creation and status in (400, 403, 422) and _OF_PLANS.search(detail)):
        return PrefectPlanError(what, _PLAN)
    if status == 403 and is_page:
        return PrefectForbiddenError(what, _PROXY)
    if status == 403:
        return PrefectForbiddenError(what, f"{_ROLE}; if it is, {_PLAN}" if is_creation else _ROLE)
    is_unread = request.startswith("GET ") and status in (400, 422)  # such as of "ACCOUNT"
    if status < 400:
        step = f"{CHECK_API_URL}; where a proxy before it redirects, {_PROXY}"
        return PrefectAddressError(what, step)
    if status in (404, 405) or is_unread:
        return PrefectAddressError(what, CHECK_API_URL)
    if status == 409:
        return PrefectConflictError(what, "none: the next call reads what Prefect has now")
    return PrefectRejectedError(what, _CORRECT)
