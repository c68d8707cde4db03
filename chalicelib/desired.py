"""What shall be brought up, as the settings and the shipped templates say it.

Between `provision_settings.py`, which every Lambda checks at its cold start, and
`core/provision/plan.py`, which only `provision` has to load.
"""

from collections.abc import Mapping
from typing import Any, Final

from chalicelib.core.provision.mode import Provision
from chalicelib.core.provision.plan import Credential, Desired
from chalicelib.core.provision.pool_template import Template
from chalicelib.provision_settings import ProvisionSettings
from chalicelib.settings import Settings

APP_NAME: Final = "prefect-spot"
"""Chalice puts it, and the stage, in front of the functions' names."""

FUNCTIONS: Final = ("react", "meter", "sweep", "provision")


def desired_of(
    settings: Settings,
    chosen: ProvisionSettings,
    *,
    template: Mapping[str, Any],
    pool_template: Template,
) -> Desired:
    """Return what shall be: the settings, and the templates that are shipped."""
    is_full = chosen.provision is Provision.FULL
    return Desired(
        provision=chosen.provision,
        stack_name=chosen.stack_name,
        template=template,
        parameters=_stack_parameters(settings, chosen, is_full=is_full),
        credential=_credential(settings),
        vpc_id=chosen.vpc_id if is_full else "",
        subnet_ids=chosen.subnet_ids if is_full else (),
        assign_public_ip=chosen.assign_public_ip,
        use_spot=chosen.use_spot,
        work_pool=settings.work_pool,
        pool_template=pool_template,
        functions=tuple(f"{APP_NAME}-{settings.stage}-{name}" for name in FUNCTIONS),
    )


def _stack_parameters(
    settings: Settings, chosen: ProvisionSettings, *, is_full: bool
) -> Mapping[str, str]:
    """All of the stack's, in its order, VPC and subnets still empty; it takes only strings."""
    return {
        "Stage": settings.stage,
        "Provision": chosen.provision.value,
        "PrefectApiUrl": settings.prefect_api_url,
        # Behind "parameter/" in its ARN, where a name has no slash of its own in front.
        "ApiKeyParameter": settings.prefect_api_key_parameter.removeprefix("/"),
        "AuthStringParameter": settings.prefect_api_auth_string_parameter.removeprefix("/"),
        "WorkPool": settings.work_pool,
        "ClusterName": ",".join(settings.ecs_clusters),
        "VpcId": "",
        "SubnetIds": "",
        "SecurityGroupIds": ",".join(chosen.security_group_ids) if is_full else "",
        "AssignPublicIp": "ENABLED" if chosen.assign_public_ip else "DISABLED",
        "UseSpot": "true" if chosen.use_spot else "false",
        "SpotWeight": str(chosen.spot_weight),
        "FargateWeight": str(chosen.fargate_weight),
        "FargateBase": str(chosen.fargate_base),
        "WorkerImage": chosen.worker_image,
        "WorkerCpu": str(chosen.worker_cpu),
        "WorkerMemory": str(chosen.worker_memory),
        "WorkQueues": ",".join(chosen.work_queues),
        "WorkerQuerySeconds": str(chosen.worker_query_seconds),
        "LogLevel": chosen.log_level,
        "LogRetentionDays": str(chosen.log_retention_days),
        "AlarmEmail": chosen.alarm_email,
        "TableName": settings.table_name,
    }


def _credential(settings: Settings) -> Credential | None:
    if settings.prefect_api_key_parameter:
        name = settings.prefect_api_key_parameter
        return Credential(name, "PREFECT_API_KEY_PARAMETER", is_api_key=True)
    if settings.prefect_api_auth_string_parameter:
        name = settings.prefect_api_auth_string_parameter
        return Credential(name, "PREFECT_API_AUTH_STRING_PARAMETER", is_api_key=False)
    return None
