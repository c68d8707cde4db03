"""A page of runs, whatever it holds: what Prefect cannot answer is found by halving the page.

Prefect fails over each page that holds a run with a null label, or takes too long over one with a
state of many megabytes. No answer names the run. So a page that fails is asked for in halves until
the run stands alone: some two requests for each halving, and two that show whether Prefect answers
at all. In an outage the first of these fails, and with it the sweep.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.core.model.sweeping import Found, UnreadRun
from chalicelib.core.ports import Context, RunQuery
from chalicelib.errors import PrefectSpotError, PrefectUnreadableError

MOST_REQUESTS: Final = 250
"""For the parts of pages that failed: as many as a hundred runs take that all fail."""
SECONDS_PER_PAGE: Final = 10.0
"""Must be left of the invocation, or no further page, nor part of one, is asked for."""


@dataclass(frozen=True, slots=True)
class Page:
    """Runs in the order of their set. `whole`: False when there was no time for those behind."""

    found: tuple[Found, ...]
    whole: bool = True


def check(context: Context) -> None:
    """Raise PrefectSpotError unless Prefect answers a search, for no runs at all."""
    context.prefect.find_runs(RunQuery(context.work_pools, (), limit=0, known_pool=True))


class Pages:
    """Reads pages. Raises PrefectSpotError when Prefect is not there, or rejects the search."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._requests = MOST_REQUESTS

    def read(self, query: RunQuery) -> Page | None:
        """Return the page; None for one not by id that holds what cannot be read."""
        prefect = self._context.prefect
        try:
            page = Page(prefect.find_runs(query))
        except PrefectUnreadableError as error:
            check(self._context)
            if not query.is_by_id:
                return None
            page = self._by_parts(query, error)
        if all(found.id for found in page.found):
            is_read = not any(isinstance(found, UnreadRun) for found in page.found)
            return page if query.is_by_id or is_read else None
        return self._named(query, page) if query.is_by_id else None

    def _by_parts(self, query: RunQuery, error: PrefectUnreadableError) -> Page:
        found: list[Found] = []
        whole = self._halve(query, error, found)
        check(self._context)  # or an outage that began meanwhile would be taken for many odd runs
        return Page(tuple(found), whole)

    def _halve(self, query: RunQuery, error: PrefectUnreadableError, found: list[Found]) -> bool:
        """Add what is found in a page that failed; return whether there was time for all of it."""
        if query.limit == 1:
            found.append(UnreadRun(error.what))
            return True
        half = query.limit // 2
        rest = replace(query, offset=query.offset + half, limit=query.limit - half)
        for part in (replace(query, limit=half), rest):
            self._requests -= 1
            if self._requests < 0 or self._context.seconds_left() < SECONDS_PER_PAGE:
                return False
            try:
                found += self._context.prefect.find_runs(replace(part, known_pool=True))
            except PrefectUnreadableError as failure:
                if not self._halve(part, failure, found):
                    return False
        return True

    def _named(self, query: RunQuery, page: Page) -> Page:
        """Return the page with the ids of its runs, where a search for ids alone shows them."""
        try:
            ids = self._context.prefect.find_run_ids(replace(query, limit=len(page.found)))
        except PrefectSpotError:  # a proxy may forbid what is the UI's
            return page
        if len(ids) != len(page.found) or not _agree(page.found, ids):
            return page
        named = (
            replace(found, id=id_) if isinstance(found, UnreadRun) else found
            for found, id_ in zip(page.found, ids, strict=True)
        )
        return replace(page, found=tuple(named))


def _agree(found: Sequence[Found], ids: Sequence[object]) -> bool:
    return all(each.id in (None, id_) for each, id_ in zip(found, ids, strict=True))
