"""Prefect's work pools in memory; passes the same contract suite as real servers."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chalicelib.core.provision.pool_template import Template, WorkPool
from chalicelib.errors import PrefectConflictError, PrefectRejectedError, PrefectSpotError


@dataclass(slots=True)
class PoolSeen:
    """A work pool as people see it; `queues` holds their concurrency limits, None for none."""

    type: str
    base_job_template: dict[str, Any]
    concurrency_limit: int | None = None
    is_paused: bool = False
    description: str | None = None
    queues: dict[str, int | None] = field(default_factory=lambda: {"default": None})


class InMemoryWorkPools:
    """The port, and what people do to pools beside it. `failure`, once set, is always raised."""

    def __init__(self) -> None:
        self.pools: dict[str, PoolSeen] = {}
        self.calls: list[str] = []
        self.failure: PrefectSpotError | None = None
        self.version = ""

    # The port.

    def server_version(self) -> str:
        self._called("server_version")
        return self.version

    def read(self, name: str) -> WorkPool | None:
        self._called("read")
        pool = self.pools.get(name)
        if pool is None:
            return None
        return WorkPool(name, pool.type, copy.deepcopy(pool.base_job_template))

    def create(self, name: str, base_job_template: Template) -> None:
        self._called("create")
        if name in self.pools:
            raise PrefectConflictError(
                "A work pool with this name already exists.", next_step="none"
            )
        self._check(base_job_template)
        self.pools[name] = PoolSeen("ecs", copy.deepcopy(dict(base_job_template)))

    def change(self, name: str, base_job_template: Template) -> None:
        self._called("change")
        self._check(base_job_template)
        if name not in self.pools:
            raise PrefectRejectedError(f"Worker pool {name!r} not found.", next_step="none")
        self.pools[name].base_job_template = copy.deepcopy(dict(base_job_template))

    # What people do.

    def create_pool(self, name: str, *, kind: str = "ecs", template: Mapping[str, Any]) -> None:
        self.pools[name] = PoolSeen(kind, copy.deepcopy(dict(template)))

    def settle(self, name: str, *, concurrency_limit: int, description: str) -> None:
        """Set limit and description, pause the pool, and add a queue with a limit of its own."""
        pool = self.pools[name]
        pool.concurrency_limit, pool.description = concurrency_limit, description
        pool.is_paused = True
        pool.queues["urgent"] = 2

    def look(self, name: str) -> PoolSeen:
        return copy.deepcopy(self.pools[name])

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if self.failure is not None:
            raise self.failure

    def _check(self, template: Template) -> None:
        if template and not {"job_configuration", "variables"} <= set(template):
            raise PrefectRejectedError(
                "The `base_job_template` must contain both a `job_configuration` key and a"
                " `variables` key.",
                next_step="none",
            )
