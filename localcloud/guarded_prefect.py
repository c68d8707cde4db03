"""Prefect's own server behind the guard: `python -m localcloud.guarded_prefect server start …`.

Its password keeps strangers from the API, and its CORS setting pages from the answers; neither asks
for the host or, at the WebSockets, for the origin. Old Prefect's takes events without a password.
The Python is that of the Prefect that serves: nothing else is imported.
"""

from typing import Any
from unittest.mock import patch

import uvicorn
from prefect.cli import app

from localcloud.guard import guarded

serve = uvicorn.run


def serve_guarded(**options: Any) -> None:
    """Run uvicorn as Prefect's `server start` does."""
    serve(**{**options, "app": guarded(options["app"], options["port"], has_ui=True)})


if __name__ == "__main__":
    with patch.object(uvicorn, "run", serve_guarded):
        app()
