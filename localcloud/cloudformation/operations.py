"""CloudFormation on the laptop: stacks are created, updated, rolled back and deleted as on AWS.

moto's own knows no rollback, leaves a failed creation in CREATE_IN_PROGRESS for ever, sees changes
through `Ref` only and deletes half of what it made. Here a request begins an operation and returns,
as on AWS, and a thread carries it out: every resource has its events, a failed one its reason.
"""

import math
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from moto.cloudformation.exceptions import AlreadyExistsException, ValidationError

from localcloud.cloudformation.resources import KINDS, Client, Made, ResourceError
from localcloud.cloudformation.scope import Scope
from localcloud.cloudformation.stack import Stack, Wanted, check

TIMED_OUT = "Stack creation time exceeded the specified timeout."
CIRCUIT_BROKEN = "Error occurred during operation 'ECS Deployment Circuit Breaker was triggered'."


class CloudFormation:
    """The stacks of one account and region.

    `services_are_kept`: Fargate runs the services' tasks, so a service is waited for until it is
    steady, or the stack's time is over. `minute_seconds`: how long a minute of that time takes.
    `errors` keeps what the emulation's own threads raised; expect it empty.
    """

    def __init__(self, client: Client, account: str, region: str) -> None:
        self.services_are_kept, self.minute_seconds = False, 60.0
        self.errors: list[Exception] = []
        self._client = client
        self._pseudo = {"AWS::AccountId": account, "AWS::Region": region, "AWS::Partition": "aws"}
        self._stacks: dict[str, Stack] = {}  # by id, those deleted too
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(8)

    def close(self) -> None:
        """Let what is being done come to its end, and forget all."""
        self._closed.set()
        self._pool.shutdown()

    def stacks(self) -> list[Stack]:
        """Return all stacks but the deleted ones."""
        return [s for s in list(self._stacks.values()) if s.status != "DELETE_COMPLETE"]

    def stack(self, name_or_id: str) -> Stack:
        """Return a stack, by id also a deleted one. Raises ValidationError for an unknown one."""
        by_name = {stack.name: stack for stack in self.stacks()}
        if stack := self._stacks.get(name_or_id) or by_name.get(name_or_id):
            return stack
        raise ValidationError(name_or_id)

    def create(
        self, name: str, wanted: Wanted, capabilities: list[str], timeout_minutes: int | None
    ) -> str:
        """Begin to create a stack; return its id."""
        check(wanted, capabilities)
        with self._lock:
            if any(stack.name == name for stack in self.stacks()):
                raise AlreadyExistsException(f"Stack [{name}] already exists")
            place = f"{self._pseudo['AWS::Region']}:{self._pseudo['AWS::AccountId']}"
            stack_id = f"arn:aws:cloudformation:{place}:stack/{name}/{uuid.uuid4()}"
            stack = self._stacks[stack_id] = Stack(stack_id, name, wanted, timeout_minutes)
            stack.note("CREATE_IN_PROGRESS", "User Initiated")
        self._start(stack, lambda: self._create(stack))
        return stack.id

    def update(self, name_or_id: str, wanted: Wanted, capabilities: list[str]) -> str:
        """Begin to update a stack; return its id."""
        check(wanted, capabilities)
        with self._lock:
            stack = self.stack(name_or_id)
            final = ("ROLLBACK_COMPLETE", "DELETE_COMPLETE")
            if not stack.status.endswith("_COMPLETE") or stack.status in final:
                raise ValidationError(
                    message=f"Stack:{stack.id} is in {stack.status} state and can not be updated."
                )
            if wanted == (old := stack.wanted):
                raise ValidationError(message="No updates are to be performed.")
            stack.wanted = wanted
            stack.note("UPDATE_IN_PROGRESS", "User Initiated")
        self._start(stack, lambda: self._update(stack, old))
        return stack.id

    def delete(self, name_or_id: str) -> None:
        """Begin to delete a stack; without effect where there is none, or it is being deleted."""
        with self._lock:
            named = [s for s in self.stacks() if name_or_id in (s.name, s.id)]
            if not named or named[0].status == "DELETE_IN_PROGRESS":
                return
            [stack] = named
            stack.note("DELETE_IN_PROGRESS", "User Initiated")
        self._start(stack, lambda: self._delete(stack))

    def _start(self, stack: Stack, operation: Callable[[], None]) -> None:
        def run() -> None:
            try:
                operation()
            except Exception as error:  # a mistake of this emulation's, or of the template's
                self.errors.append(error)
                stack.note(f"{stack.status.split('_')[0]}_FAILED", f"Internal failure: {error!r}")

        self._pool.submit(run)

    def _create(self, stack: Stack) -> None:
        try:
            self._apply(stack)
            stack.note("CREATE_COMPLETE")
        except _OperationError as error:
            stack.note("ROLLBACK_IN_PROGRESS", f"{error} Rollback requested by user.")
            clean = self._delete_all(stack)
            stack.note("ROLLBACK_COMPLETE" if clean else "ROLLBACK_FAILED")

    def _update(self, stack: Stack, old: Wanted) -> None:
        verb, before, tried = "UPDATE", dict(stack.made), dict[str, Made]()
        try:
            self._apply(stack)
        except _OperationError as error:
            verb, tried = "UPDATE_ROLLBACK", dict(stack.made)
            stack.note("UPDATE_ROLLBACK_IN_PROGRESS", str(error))
            stack.wanted = old
            for name, made in before.items():
                if made.physical_resource_id != tried[name].physical_resource_id:
                    stack.made[name] = made  # it was replaced, and is still there
            try:
                self._apply(stack)
            except _OperationError as worse:
                stack.note("UPDATE_ROLLBACK_FAILED", str(worse))
                return
        stack.note(f"{verb}_COMPLETE_CLEANUP_IN_PROGRESS")
        kept = {(name, made.physical_resource_id) for name, made in stack.made.items()}
        for name, made in reversed([*before.items(), *tried.items()]):
            if (name, made.physical_resource_id) not in kept:
                self._delete_one(stack, name, made)
                kept.add((name, made.physical_resource_id))
        stack.note(f"{verb}_COMPLETE")

    def _delete(self, stack: Stack) -> None:
        clean = self._delete_all(stack)
        failed = f"The following resource(s) failed to delete: [{', '.join(stack.made)}]."
        stack.note("DELETE_COMPLETE" if clean else "DELETE_FAILED", "" if clean else failed)

    def _apply(self, stack: Stack) -> None:
        """Make and change all that differs; what is replaced or unwanted is not deleted yet.

        Raises _OperationError for the first resource that cannot be made or changed.
        """

        def provide(logical_id: str, resource_type: str, properties: dict[str, Any]) -> Made:
            present = stack.made.get(logical_id)
            if present and present.properties == properties:
                return present
            verb = "UPDATE" if present else "CREATE"
            stack.note(f"{verb}_IN_PROGRESS", "", logical_id)
            try:
                made = self._make_or_change(present, resource_type, properties)
                stack.made[logical_id] = made  # also when it does not get steady
                self._await_steady(stack, made)
            except _TimeoutError as error:
                stack.note(f"{verb}_FAILED", "Resource creation cancelled", logical_id)
                raise _OperationError(TIMED_OUT) from error
            except (ClientError, BotoCoreError, ResourceError) as error:
                stack.note(f"{verb}_FAILED", str(error), logical_id)
                reason = f"The following resource(s) failed to {verb.lower()}: [{logical_id}]."
                raise _OperationError(reason) from error
            stack.note(f"{verb}_COMPLETE", "", logical_id, made.physical_resource_id)
            return made

        pseudo = {**self._pseudo, "AWS::StackName": stack.name, "AWS::StackId": stack.id}
        scope = Scope(stack.wanted.template, {**pseudo, **stack.wanted.parameters}, provide)
        stack.made = scope.provide_all()
        stack.outputs = scope.outputs()

    def _make_or_change(
        self, present: Made | None, resource_type: str, properties: dict[str, Any]
    ) -> Made:
        if (kind := KINDS.get(resource_type)) is None:
            raise ResourceError(f"Unrecognized resource types: [{resource_type}]")
        if present and kind.change and kind.can_change(present.properties, properties):
            kind.change(self._client, present, properties)
            return Made(resource_type, properties, present.physical_resource_id, present.attributes)
        physical_id, attributes = kind.make(self._client, properties)
        return Made(resource_type, properties, physical_id, attributes)

    def _await_steady(self, stack: Stack, made: Made) -> None:
        """Wait for a service's tasks, as long as its deployment has not been given up.

        Raises _TimeoutError when the time of the stack's creation is over.
        """
        if made.type != "AWS::ECS::Service":
            return
        limit = (stack.timeout_minutes or math.inf) * self.minute_seconds
        ends_at = time.monotonic() + (limit if stack.status == "CREATE_IN_PROGRESS" else math.inf)
        cluster, name = made.properties["Cluster"], made.attributes["Name"]
        while self.services_are_kept and not self._closed.is_set():
            answer = self._client("ecs").describe_services(cluster=cluster, services=[name])
            deployment = answer["services"][0]["deployments"][0]
            is_current = deployment["taskDefinition"] == made.properties["TaskDefinition"]
            if is_current and deployment["rolloutState"] == "COMPLETED":
                return
            if is_current and deployment["rolloutState"] == "FAILED":
                raise ResourceError(CIRCUIT_BROKEN)
            if time.monotonic() > ends_at:
                raise _TimeoutError
            self._closed.wait(0.1)

    def _delete_all(self, stack: Stack) -> bool:
        """Delete in the reverse order of making; return whether all of it went."""
        for logical_id, made in reversed(list(stack.made.items())):
            if self._delete_one(stack, logical_id, made):
                del stack.made[logical_id]
        return not stack.made

    def _delete_one(self, stack: Stack, logical_id: str, made: Made) -> bool:
        stack.note("DELETE_IN_PROGRESS", "", logical_id, made.physical_resource_id)
        try:
            KINDS[made.type].delete(self._client, made)
        except (ClientError, BotoCoreError, ResourceError) as error:
            stack.note("DELETE_FAILED", str(error), logical_id, made.physical_resource_id)
            return False
        stack.note("DELETE_COMPLETE", "", logical_id, made.physical_resource_id)
        return True


class _TimeoutError(Exception):
    """The time of the stack's creation is over."""


class _OperationError(Exception):
    """A resource could not be made or changed, so the operation fails."""
