"""The outside world: Prefect's REST API, DynamoDB, ECS, SSM. They move facts and decide nothing."""
