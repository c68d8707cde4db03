"""Flows that are warned: each notes in a file what it lived to do after SIGTERM.

Loaded by the engines of the newest and of the oldest Prefect: it imports Prefect and nothing else.
"""

import asyncio
import atexit
import ctypes
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.exceptions import TerminationSignal
from prefect.results import get_result_store
from prefect.runtime import flow_run
from prefect.task_runners import ProcessPoolTaskRunner

KEY = "checkpoint"
UNTIL_WARNED = 600
STOP = threading.Event()


def note(file: str, line: str) -> None:
    with Path(file).open("a") as notes:
        notes.write(line + "\n")


def works(file: str, seconds: float = UNTIL_WARNED) -> None:
    note(file, "begin")
    waits(seconds)


def waits(seconds: float) -> None:
    """In steps, as Python code would: a signal is heard between two of them."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        time.sleep(0.05)


@task(persist_result=True)
def long_task(file: str, saving: float) -> None:
    store = get_result_store()
    try:
        works(file)
    except TerminationSignal:
        note(file, "warned")
        waits(saving)
        store.write(1, key=KEY)
        note(file, "saved")
        raise


@task(persist_result=True)
async def long_async_task(file: str, blocks: bool) -> None:
    store = get_result_store()
    try:
        if blocks:
            works(file)
        note(file, "begin")
        await asyncio.sleep(UNTIL_WARNED)
    except (TerminationSignal, asyncio.CancelledError) as warning:
        note(file, type(warning).__name__)
        await store.awrite(1, key=KEY)
        note(file, "saved")
        raise


def hook(name: str) -> Any:
    def noted(_flow: Any, run: Any, _state: Any) -> None:
        note(run.parameters["file"], name)

    return noted


@flow(
    on_crashed=[hook("on_crashed")],
    on_cancellation=[hook("on_cancellation")],
    on_failure=[hook("on_failure")],
)
def saves(file: str, saving: float = 0) -> None:
    long_task(file, saving)


@flow
async def saves_async(file: str, blocks: bool = False) -> None:
    await long_async_task(file, blocks)


@flow
def writes_without_a_task(file: str) -> None:
    store = get_result_store()
    with suppress(TypeError):  # it asks a file system that stores nothing for the metadata
        store.write(1, key=KEY)
    note(file, "readable" if store.exists(KEY) else "unreadable")
    works(file)


@flow
def finishes(file: str) -> None:
    try:
        works(file)
    except TerminationSignal:
        waits(3)
    note(file, "finished")


@flow
async def finishes_async(file: str) -> None:
    note(file, "begin")
    try:
        await asyncio.sleep(UNTIL_WARNED)
    except (TerminationSignal, asyncio.CancelledError):
        await asyncio.sleep(3)
    note(file, "finished")


@task(persist_result=True)
def part(file: str, seconds: float) -> None:
    works(file, seconds)
    note(file, "part done")


@flow
def part_in_a_thread(file: str) -> None:
    submitted = part.submit(file, 8)
    try:
        submitted.result()
    except TerminationSignal:
        note(file, "warned")
        raise


@task
def part_that_asks(file: str) -> None:
    note(file, "begin")
    STOP.wait(UNTIL_WARNED)
    get_result_store().write(1, key=KEY)
    note(file, "saved")


@flow
def thread_with_an_event(file: str) -> None:
    asking = part_that_asks.submit(file)
    try:
        asking.result()
    except TerminationSignal:
        STOP.set()
        raise


PROCESSES: Any = ProcessPoolTaskRunner(max_workers=1)


@flow(task_runner=PROCESSES)
def part_in_a_process(file: str) -> None:
    part.submit(file, 5).result()


@flow
def inner(file: str) -> None:
    try:
        works(file)
    except TerminationSignal:
        note(file, "inner warned")
        raise


@flow
def calls_a_subflow(file: str) -> None:
    try:
        inner(file)
    except TerminationSignal:
        note(file, "outer warned")
        raise


CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("child warned"))
print("begin", flush=True)
time.sleep(600)
"""


@flow
def waits_for_a_program(file: str) -> None:
    """Not by `subprocess.run`, which kills it when an exception comes."""
    with Path(file).open("a") as notes:
        program = subprocess.Popen([sys.executable, "-c", CHILD], stdout=notes, stderr=notes)
    try:
        program.wait()
    except TerminationSignal:
        program.wait(20)
        raise


def uploads_too_late(file: str) -> None:
    """As boto3 does, in a thread."""
    note(file, "atexit")
    ThreadPoolExecutor().submit(note, file, "uploaded")


@flow
def cleans_up(file: str) -> None:
    atexit.register(uploads_too_late, file)
    try:
        works(file)
    except Exception:
        note(file, "except Exception")
    finally:
        note(file, "finally")


@flow
def sets_a_handler(file: str) -> None:
    earlier: Any = signal.getsignal(signal.SIGTERM)

    def save_then_chain(*arguments: Any) -> None:
        note(file, "saved")
        earlier(*arguments)

    signal.signal(signal.SIGTERM, save_then_chain)
    works(file)


@flow
def sets_a_handler_in_a_thread(file: str) -> None:
    def work() -> None:
        try:
            signal.signal(signal.SIGTERM, lambda *_: note(file, "saved"))
        except ValueError:
            note(file, "no handler")
        try:
            works(file)
        finally:
            note(file, "finally")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join()


def is_stuck(library: ctypes.CDLL) -> None:
    """Call C code that ends of no signal: a mutex that is locked already."""
    mutex = ctypes.create_string_buffer(256)
    library.pthread_mutex_init(mutex, None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


@flow
def calls_c(file: str, keeps_the_gil: bool = False) -> None:
    note(file, "begin")
    try:
        is_stuck(ctypes.PyDLL(None) if keeps_the_gil else ctypes.CDLL(None))
    finally:
        note(file, "finally")


def makes_an_error_of_it(file: str) -> None:
    note(file, f"start {flow_run.run_count}")
    try:
        works(file)
    except BaseException as warning:
        raise RuntimeError("it did not work") from warning


@flow
def fails_of_it(file: str) -> None:
    makes_an_error_of_it(file)


@flow(retries=1)
def fails_of_it_and_retries(file: str) -> None:
    makes_an_error_of_it(file)
