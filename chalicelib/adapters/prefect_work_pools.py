"""Prefect's work pools over HTTP, for `provision` and the operator.

A module of its own: the Lambdas that rescue do without it.
"""

from collections.abc import Callable

from chalicelib.adapters.prefect_answers import Fields
from chalicelib.adapters.prefect_api import pool_path
from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.adapters.prefect_errors import CHECK_API_URL
from chalicelib.core.provision.pool_template import Template, WorkPool
from chalicelib.errors import PrefectRefusedError, PrefectRejectedError, PrefectUnavailableError


class PrefectWorkPools:
    """`functions.provision.WorkPools` over HTTP; raises what `JsonHttp` raises."""

    def __init__(self, http: JsonHttp) -> None:
        self._http = http

    def read(self, name: str) -> WorkPool | None:
        """Return the pool; None when Prefect does not know it."""
        answer = self._http.get(pool_path(name))
        if answer is None:
            return None
        fields = Fields(answer, "work pool")
        template = Fields(fields.get("base_job_template"), "work pool's template")
        return WorkPool(name, fields.need("type", str), template)

    def create(self, name: str, base_job_template: Template) -> None:
        """Create a pool of type ecs. Raises PrefectConflictError when it is there already."""
        body = {"name": name, "type": "ecs", "base_job_template": base_job_template}
        self._http.send("POST", "/work_pools/", body)

    def change(self, name: str, base_job_template: Template) -> None:
        """Replace the pool's base job template; Prefect leaves alone what a PATCH leaves out."""
        self._http.send("PATCH", pool_path(name), {"base_job_template": base_job_template})

    def server_version(self) -> str:
        """Return the server's version; empty where it is not served: Prefect Cloud has none."""
        version = if_served(lambda: self._http.get("/admin/version")) or ""
        if isinstance(version, str):
            return version
        raise PrefectUnavailableError("Prefect's answer contains no version", CHECK_API_URL)


def if_served(call: Callable[[], object]) -> object:
    """Return the answer about something that can be done without; None where it is refused."""
    try:
        return call()
    except (PrefectRefusedError, PrefectRejectedError):
        return None  # a wrong credential or address shows in what is read next
