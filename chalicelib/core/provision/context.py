"""Everything `provision` may touch in one invocation, and the ports it does it through.

`wiring.py` fills them in. Prefect's work pools have two implementations, by one contract suite; the
rest has one each, and moto for its twin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chalicelib.core.ports import Log
from chalicelib.core.provision.dead_letters import Delivery, PutInvokeConfig, PutTargets
from chalicelib.core.provision.plan import Credential, Desired, Network
from chalicelib.core.provision.pool_template import Template, WorkPool
from chalicelib.core.provision.stack import Stack
from chalicelib.core.provision.steps import StackDefinition


class Stacks(Protocol):
    """CloudFormation. Whoever is late at a step of somebody else's raises OvertakenError."""

    def read(self, name: str) -> Stack | None:
        """Return the stack as it is, with what failed in its last operation; None for none."""

    def create(self, definition: StackDefinition) -> None:
        """Begin to create it."""

    def update(self, stack_id: str, definition: StackDefinition) -> None:
        """Begin to update it."""

    def delete(self, stack_id: str) -> None:
        """Begin to delete it."""


class Networks(Protocol):
    """EC2, as far as it knows where tasks may run."""

    def find(self, vpc_id: str, subnet_ids: Sequence[str], *, assign_public_ip: bool) -> Network:
        """Return the network; what is empty is looked up. Raises NetworkError."""


class Parameters(Protocol):
    """SSM's word about a parameter, its value left alone."""

    def arn_of(self, credential: Credential) -> str:
        """Return the ARN. Raises ParameterError for one that is missing, or no SecureString."""


class ServiceLinkedRole(Protocol):
    """ECS's own role in the account."""

    def exists(self) -> bool:
        """Whether the account has it."""

    def create(self) -> None:
        """Create it; one that is there already is as good."""


class Deliveries(Protocol):
    """EventBridge's and Lambda's settings about events that cannot be handled."""

    def read(self, function: str) -> Delivery:
        """Return how events come to the function; without rules when it is not deployed."""

    def put_targets(self, step: PutTargets) -> None:
        """Write the rule's targets. Raises OvertakenError."""

    def put_invoke_config(self, step: PutInvokeConfig) -> None:
        """Write the function's event-invoke config. Raises OvertakenError."""


class WorkPools(Protocol):
    """Prefect's work pools. Each method raises what `core.ports.Prefect` says."""

    def read(self, name: str) -> WorkPool | None:
        """Return the pool; None when Prefect does not know it."""

    def create(self, name: str, base_job_template: Template) -> None:
        """Create a pool of type ecs. Raises PrefectConflictError when it is there already."""

    def change(self, name: str, base_job_template: Template) -> None:
        """Replace the pool's base job template; limits, queues and the rest stay."""


@dataclass(frozen=True, slots=True)
class ProvisionContext:
    """The ports, and what shall be."""

    desired: Desired
    stacks: Stacks
    networks: Networks
    parameters: Parameters
    service_linked_role: ServiceLinkedRole
    deliveries: Deliveries
    work_pools: WorkPools
    log: Log
