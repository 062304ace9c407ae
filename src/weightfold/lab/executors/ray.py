"""Runs as tasks of a Ray cluster. Without a shared folder they are brought back."""

import os
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from weightfold.export.extras import need
from weightfold.lab.executors.base import Outcome, RunExecutor, WorkerDied, attempt, settle
from weightfold.lab.executors.board import Board
from weightfold.train.progress import Progress

AT_ONCE = 256
"""Calls submitted at once if not said otherwise: what they are given lies in memory here."""

CONNECT_SECONDS = 10.0


class RayExecutor(RunExecutor):
    """Each call is a task, which Ray places where there is room.

    Args:
        root: As `RunExecutor`.
        jobs: As `RunExecutor`; None: `AT_ONCE`.
        address: "auto" for the cluster that this machine is part of, "host:6379", or
            "ray://host:10001"; None starts a Ray on this machine, for as long as this executor.
        num_cpus: Cores of a call, and threads of torch in it.
        num_gpus: GPUs of a call; a fraction lets several share one.
        shared: Whether all nodes mount the folder of the runs at its path. Otherwise runs are
            written here when they end, and one whose node dies starts from its beginning.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: No Ray answers at `address`, or this process is connected to another.
        ValueError: An option is out of range.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "address": str,
        "num_cpus": int,
        "num_gpus": float,
        "shared": bool,
    }

    def __init__(
        self,
        root: Path,
        jobs: int | None,
        *,
        address: str | None = None,
        num_cpus: int = 1,
        num_gpus: float = 0.0,
        shared: bool = False,
    ) -> None:
        super().__init__(root, jobs or AT_ONCE, num_cpus)
        need("ray", "ray")
        if num_cpus < 1:
            raise ValueError(f"num_cpus={num_cpus}: give at least 1")
        if num_gpus < 0:
            raise ValueError(f"num_gpus={num_gpus}: give at least 0")
        self.shared = shared
        self._mine = _connect(address)
        import ray

        self._attempt: Any = ray.remote(attempt).options(
            num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0
        )
        self._tasks: dict[Future[Any], Any] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`."""
        future: Future[Any] = Future()
        task = self._attempt.remote(self.threads, fn, *args, **kwargs)
        self._tasks[future] = task

        def ended(inner: Future[Any]) -> None:
            self._tasks.pop(future, None)
            settle(future, _outcome(inner))

        task.future().add_done_callback(ended)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures.Executor.shutdown`; ends the tasks that run, too."""
        import ray

        for future, task in list(self._tasks.items()):
            if cancel_futures:
                future.cancel()
                ray.cancel(task, force=True)
            elif wait:
                ray.wait([task])
        if self._mine:
            ray.shutdown()

    def board(self) -> Board:
        """Files where the folder is shared, else an actor of Ray."""
        return super().board() if self.shared else ActorBoard()


class ActorBoard:
    """A board in an actor, which ends with the last handle on it."""

    def __init__(self) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = ray.get_runtime_context().get_node_id()  # it must not die with a worker's node
        self._actor: Any = (
            ray.remote(_Board)
            .options(
                num_cpus=0,
                max_restarts=-1,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=True),
            )
            .remote()
        )

    def tell(self, name: str, now: Progress) -> None:
        """As `Board`."""
        self._actor.tell.remote(name, now)

    def read(self) -> dict[str, Progress]:
        """As `Board`."""
        import ray

        return ray.get(self._actor.read.remote())

    def forget(self, name: str) -> None:
        """As `Board`."""
        self._actor.forget.remote(name)


class _Board:
    """The actor."""

    def __init__(self) -> None:
        self._now: dict[str, Progress] = {}

    def tell(self, name: str, now: Progress) -> None:
        self._now[name] = now

    def read(self) -> dict[str, Progress]:
        return self._now

    def forget(self, name: str) -> None:
        self._now.pop(name, None)


def _connect(address: str | None) -> bool:
    """Connect this process to Ray; whether it was not before.

    Raises:
        ConnectionError: No Ray answers, or it is connected to another one.
    """
    import ray

    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", there):
            raise ConnectionError(
                f"on='ray' cannot be reached: address={address!r}: this process is connected to "
                f"{there!r}; ray.shutdown() first"
            )
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: Any = {"logging_level": "ERROR", "log_to_driver": False}
    try:
        if address is None:
            ray.init("local", include_dashboard=False, **quiet)
            return True
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if host:  # Ray itself waits for minutes and then ends the process
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConnectionError(
            f"on='ray' cannot be reached: address={address!r}: {error}"
        ) from error
    return True


def _outcome(inner: Future[Any]) -> Outcome:
    """What a task of Ray came to."""
    import ray.exceptions as errors

    lost = (
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.LocalRayletDiedError,
        errors.OutOfMemoryError,
        errors.ObjectLostError,
    )
    try:
        return inner.result()
    except lost as error:
        reason = str(error).partition("\n")[0]  # pages of state follow
        return Outcome(error=WorkerDied(f"its worker died ({type(error).__name__}: {reason})"))
    except Exception as error:
        return Outcome(error=RuntimeError(f"{type(error).__name__}: {error}"))


EXECUTOR = RayExecutor
