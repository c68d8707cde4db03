"""An example of one long task that saves its work when Spot warns it, and goes on from there.

Work that can be cut into tasks with persisted results needs nothing of this: `nightly_sales.py`.
This is for what cannot, such as a training. On the warning, Prefect raises TerminationSignal where
the main thread stands; 30 seconds later it kills the process. The task saves what it has, beside
the results, by a key that is made of the run's id: the rerun is the same run, and finds it. If what
is left fits into the seconds that are left, it goes on to the end instead, and the run Completes.

No warning comes when the host dies: so the task saves every now and then as well.
"""

import time

from prefect import flow, get_run_logger, task
from prefect.exceptions import TerminationSignal
from prefect.results import get_result_store
from prefect.runtime import flow_run

RESULTS = "s3-bucket/prefect-spot-results"
SAVED_EVERY = 25
"""Epochs."""
SECONDS_LEFT = 20
"""Of the 30: some are needed to store the result, and to say that the run is Completed."""

Model = dict[str, float]


def next_epoch(model: Model, seconds: float) -> Model:
    """Stand in for an epoch. It makes a new model: interrupted halfway, the old one is whole."""
    time.sleep(seconds)
    return {"epoch": model["epoch"] + 1, "loss": model["loss"] * 0.9}


@task(persist_result=True)
def train(epochs: int, seconds: float) -> Model:
    """Return the model after its last epoch.

    To be called, not submitted: a submitted task runs in a thread, where no warning is heard.
    """
    logger, store, key = get_run_logger(), get_result_store(), f"{flow_run.id}-train"
    model: Model = store.read(key).result if store.exists(key) else {"epoch": 0, "loss": 1.0}

    def go_on() -> None:
        nonlocal model
        while model["epoch"] < epochs:
            model = next_epoch(model, seconds)
            logger.info("epoch %d of %d is done", model["epoch"], epochs)
            if model["epoch"] % SAVED_EVERY == 0:
                store.write(model, key=key)

    try:
        go_on()
    except TerminationSignal:
        store.write(model, key=key)
        logger.info("saved after epoch %d", model["epoch"])
        if (epochs - model["epoch"]) * seconds > SECONDS_LEFT:
            raise  # Prefect stops, and prefect-spot reruns
        go_on()
    return model


@flow(persist_result=True, result_storage=RESULTS, result_serializer="json")
def train_model(epochs: int = 120, seconds: float = 1) -> float:
    """Train a model, and return its loss. `seconds`: of each epoch."""
    return train(epochs, seconds)["loss"]
