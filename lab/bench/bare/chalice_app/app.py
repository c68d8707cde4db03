"""A Chalice function that does nothing: what a cold start costs that imports boto3.

It makes the clients that `react` makes before its first answer.
"""

import boto3
from chalice.app import Chalice

app = Chalice(app_name="bare", configure_logs=False)

clients = [boto3.client("dynamodb")]


@app.lambda_function()
def bare(_event: object, _context: object) -> dict[str, str]:
    """Answer at once."""
    return {"decision": "none"}
