"""Runs as jobs of a Slurm cluster, through submitit. The folder of the runs is shared."""

import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, ClassVar

from weightfold.export.extras import need
from weightfold.lab.executors.base import RUNNING, Outcome, RunExecutor, WorkerDied, attempt, settle

CLUSTERS = ("slurm", "local", "debug")
POLL_SECONDS = 1.0
QUEUE_SECONDS = 10.0
"""Between looks at the scheduler's queue."""

LOOKS = 2
"""A job has ended that so many looks in a row have missed: its result may take that long to show in
a folder shared over a network."""


class SlurmExecutor(RunExecutor):
    """Each call is a job of its own; the scheduler's queue is the queue.

    submitit pickles calls and results in `.running/submitit` below the folder of the runs: whoever
    may write there can run code as you, as whoever may write your job scripts.

    Args:
        root: As `RunExecutor`; on a file system that all nodes mount at this path.
        jobs: As `RunExecutor`.
        cluster: "slurm"; or what submitit has for trying it without one: "local", a process a
            job, and "debug", in this process.
        time: Limit of a job, minutes. A run that needs longer goes on in a further job.
        gpus_per_node: GPUs of a job.
        cpus_per_task: Cores of a job, and threads of torch in it.
        mem_gb: Memory of a job, GB.
        more: partition, account, qos, constraint, gres, exclude, as sbatch takes them.

    Raises:
        ImportError: submitit is not installed.
        ConnectionError: There is no Slurm here, or its controller does not answer.
        ValueError: The cluster has no such partition, or an option is out of range.
    """

    options: ClassVar[Mapping[str, Any]] = {
        "partition": str,
        "account": str,
        "qos": str,
        "constraint": str,
        "gres": str,
        "exclude": str,
        "time": int,
        "gpus_per_node": int,
        "cpus_per_task": int,
        "mem_gb": float,
        "cluster": str,
    }

    def __init__(
        self,
        root: Path,
        jobs: int | None,
        *,
        cluster: str = "slurm",
        time: int = 60,
        gpus_per_node: int = 0,
        cpus_per_task: int = 1,
        mem_gb: float | None = None,
        **more: str,
    ) -> None:
        super().__init__(root, jobs, cpus_per_task)
        need("slurm", "submitit")
        if cluster not in CLUSTERS:
            raise ValueError(f"cluster={cluster!r}; choose {', '.join(CLUSTERS)}")
        least = {"time": (time, 1), "cpus_per_task": (cpus_per_task, 1)}
        for name, (value, low) in {**least, "gpus_per_node": (gpus_per_node, 0)}.items():
            if value < low:
                raise ValueError(f"{name}={value}: give at least {low}")
        if cluster == "slurm":
            _reach(more.get("partition"))
        self._cluster = cluster
        self._parameters = {
            "name": "weightfold",
            "timeout_min": time,
            "gpus_per_node": gpus_per_node,
            "cpus_per_task": cpus_per_task,
            "mem_gb": mem_gb,
            "slurm_additional_parameters": {"no-requeue": True},  # the caller submits it again
            **{f"slurm_{name}": value for name, value in more.items()},
        }
        self._jobs: dict[Future[Any], Any] = {}
        self._missed: Counter[Future[Any]] = Counter()
        self._looked = -QUEUE_SECONDS
        self._over = Event()
        self._executor: Any = None
        self._watcher = Thread(target=self._watch, daemon=True)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As `concurrent.futures.Executor.submit`."""
        import submitit

        if self._executor is None:
            folder = self.root / RUNNING / "submitit"
            folder.mkdir(parents=True, exist_ok=True)
            self._executor = submitit.AutoExecutor(folder, cluster=self._cluster)
            self._executor.update_parameters(**self._parameters)
            self._watcher.start()
        future: Future[Any] = Future()
        debug = self._cluster == "debug"
        job = self._executor.submit(
            attempt if debug else _attempt_to_the_end, self.threads, fn, *args, **kwargs
        )
        if debug:
            settle(future, job.result())
        else:
            self._jobs[future] = job
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `concurrent.futures.Executor.shutdown`; cancels the jobs that run, too."""
        if cancel_futures:
            for future, job in list(self._jobs.items()):
                future.cancel()
                job.cancel(check=False)
        elif wait:
            while self._jobs:
                self._over.wait(POLL_SECONDS)
        self._over.set()

    def _watch(self) -> None:
        """In a thread: settle the futures of jobs that ended."""
        while not self._over.wait(POLL_SECONDS):
            self._look()
            for future, job in list(self._jobs.items()):
                if (outcome := self._outcome(future, job)) is not None:
                    del self._jobs[future]
                    settle(future, outcome)

    def _look(self) -> None:
        """Ask the scheduler, if that was long ago, which jobs are no longer in its queue."""
        if self._cluster != "slurm" or monotonic() - self._looked < QUEUE_SECONDS:
            return
        submitted = dict(self._jobs)
        with suppress(ConnectionError):  # the controller is busy: nothing is known
            queue = {*_ask("squeue", "--me", "--noheader", "--format=%A").split()}
            self._looked = monotonic()
            for future, job in submitted.items():
                self._missed[future] = 0 if job.job_id in queue else self._missed[future] + 1

    def _outcome(self, future: Future[Any], job: Any) -> Outcome | None:
        """What a job came to; None if it has not ended."""
        slurm = self._cluster == "slurm"
        gone = self._missed[future] >= LOOKS if slurm else job.done()  # asked before the result is
        if job.paths.result_pickle.exists():
            try:
                return job.result()
            except Exception as error:  # submitit's, with the log: the call's own are outcomes
                return Outcome(error=RuntimeError(str(error)))
        if not gone:
            return None
        return Outcome(
            error=WorkerDied(f"its job {job.job_id} ended without a result; see {job.paths.stderr}")
        )


def _attempt_to_the_end(*args: Any, **kwargs: Any) -> Outcome:
    """In a job: `attempt`, until it is killed.

    submitit has a signal sent before that, on which it would requeue the job or raise an error in
    the midst of the call.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    return attempt(*args, **kwargs)


def _reach(partition: str | None) -> None:
    """Raise unless there is a cluster that jobs can be submitted to.

    Args:
        partition: To be used; None: the cluster's default.
    """
    partitions = _ask("sinfo", "--noheader", "--format=%R").split()
    if partition is not None and partition not in partitions:
        raise ValueError(f"partition={partition!r}; this cluster has {', '.join(partitions)}")


def _ask(*command: str) -> str:
    """What a command of Slurm prints."""
    try:
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout
    except FileNotFoundError:
        reason = f"{command[0]} is not found; start it on a machine of the cluster"
    except subprocess.TimeoutExpired:
        reason = f"{command[0]} does not answer"
    except subprocess.CalledProcessError as error:
        reason = f"{command[0]} says: {error.stderr.strip() or error.returncode}"
    raise ConnectionError(f"on='slurm' cannot be reached: {reason}")


EXECUTOR = SlurmExecutor
