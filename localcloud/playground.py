"""The kept demo as a playground: the file that leads a shell to it, what to try, its schedules.

The file is `build/demo.env`. It is removed at the end; one that a killed demo left behind says so,
and changes nothing.
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote

from moto.awslambda.exceptions import UnknownFunctionException

from localcloud.cloud import SCHEDULED, Cloud
from localcloud.deployment import PROJECT

FILE = PROJECT / "build" / "demo.env"

_TEXT = r"""# Written by `make demo KEEP=1`: leads this shell to that demo, until it ends.
if ! [ -d {folder} ]; then
    echo "error: this demo has ended" >&2
    echo "next step: run make demo KEEP=1 again, and open a new shell" >&2
    return 1
fi
# Settings of your own would lead elsewhere.
for name in $(env | sed -n -e 's/^\(AWS_[A-Za-z0-9_]*\)=.*/\1/p' \
    -e 's/^\(PREFECT_[A-Za-z0-9_]*\)=.*/\1/p' -e 's/^\(PYTHON[A-Za-z0-9_]*\)=.*/\1/p' \
    -e 's/^\([A-Za-z]*_[Pp][Rr][Oo][Xx][Yy]\)=.*/\1/p'); do unset "$name"; done
unset name
export PATH={programs}:"$PATH"
"""


def try_it(run: str) -> Mapping[str, str]:
    """Return commands for a shell that has read the file, and what each does; `run` is a name."""
    return {
        "spotctl status": "shows each part of the stage, and its state",
        "spotctl report": "shows what Spot saved, by deployment, and what reruns cost",
        f"spotctl explain {quote(run)}": "shows the story of that run: attempts, decisions, money",
        "spotctl replay --set SPOT_RETRIES=0": "estimates the same without reruns on Spot",
        "spotctl drill --start nightly-sales/spot --yes": "starts the example flow once more,"
        " interrupts it, and watches; then try spotctl explain with the run's name",
    }


@contextmanager
def environment_file(cloud: Cloud, file: Path = FILE) -> Iterator[None]:
    """Write the file, for its owner's eyes only; at the end it is gone."""
    settings = {
        **cloud.environment,
        "PREFECT_HOME": str(cloud.folder / "shell"),  # a profile of the user's has a key, perhaps
        "DO_NOT_TRACK": "1",
        "SPOTCTL_PROJECT_DIR": str(cloud.folder / "project"),
        "SPOTCTL_DEMO": str(cloud.folder),  # by it, spotctl knows that the demo has ended
    }
    # `spotctl` of this very checkout, even where .venv is another's.
    text = text_of(cloud.folder, [PROJECT / "tools", Path(sys.executable).parent], settings)
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(text)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if file.read_text() == text:  # and not that of another demo
                file.unlink()


def text_of(folder: Path, programs: Sequence[Path], settings: Mapping[str, str]) -> str:
    """Return the file's text, for any shell of POSIX's kind.

    `folder` is there while the demo is; `programs` are the folders to put in front of PATH.
    """
    path = ":".join(map(str, programs))
    head = _TEXT.format(folder=quote(str(folder)), programs=quote(path))
    return head + "".join(f"export {name}={quote(value)}\n" for name, value in settings.items())


def keep(cloud: Cloud, look_seconds: float = 0.5) -> None:
    """Fire the deployed schedules, as EventBridge would, until Ctrl-C or Prefect's end.

    Raises RuntimeError once the Prefect server has ended.
    """
    due: dict[str, float] = {}
    while True:
        cloud.server.check()
        now = time.monotonic()
        for function, seconds in cloud.router.schedules().items():
            if now >= due.setdefault(function, now + seconds):
                due[function] = now + seconds
                with suppress(UnknownFunctionException):  # deleted meanwhile, by a teardown
                    cloud.lambdas.invoke_async(function, SCHEDULED)
        time.sleep(look_seconds)
