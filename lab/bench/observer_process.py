"""prefect-aws's observer as the ECS worker starts it, and nothing of the worker."""

import asyncio

from prefect_aws.observers.ecs import start_observer


async def main() -> None:
    """Observe until the process is ended."""
    await start_observer()  # type: ignore[no-untyped-call]  # prefect-aws
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
