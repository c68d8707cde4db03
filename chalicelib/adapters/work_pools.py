"""Prefect's work pools over REST: read one, create it, replace its base job template."""

from collections.abc import Mapping
from urllib.parse import quote

from chalicelib.adapters.prefect_client import CHECK_API_URL, JsonHttp
from chalicelib.core.provision.pool_template import POOL_TYPE, Template, WorkPool
from chalicelib.errors import PrefectUnavailableError


class PrefectWorkPools:
    """`functions.provision.WorkPools` over HTTP; raises what `JsonHttp` raises."""

    def __init__(self, http: JsonHttp) -> None:
        self._http = http

    def read(self, name: str) -> WorkPool | None:
        """Return the pool; None when Prefect does not know it."""
        answer = self._http.get(_path(name))
        if answer is None:
            return None
        kind = answer.get("type") if isinstance(answer, Mapping) else None
        template = answer.get("base_job_template") if isinstance(answer, Mapping) else None
        if not isinstance(kind, str) or not isinstance(template, Mapping):
            raise PrefectUnavailableError(
                "Prefect's answer holds no readable work pool", next_step=CHECK_API_URL
            )
        return WorkPool(name, kind, template)

    def create(self, name: str, base_job_template: Template) -> None:
        """Create a pool of type ecs. Raises PrefectConflictError when it is there already."""
        body = {"name": name, "type": POOL_TYPE, "base_job_template": base_job_template}
        self._http.send("POST", "/work_pools/", body)

    def change(self, name: str, base_job_template: Template) -> None:
        """Replace the pool's base job template; Prefect leaves alone what a PATCH leaves out."""
        self._http.send("PATCH", _path(name), {"base_job_template": base_job_template})


def _path(name: str) -> str:
    return f"/work_pools/{quote(name, safe='')}"
