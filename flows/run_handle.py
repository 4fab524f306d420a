"""Handle of a run that its pool executes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, cast

from typing_extensions import TypeVar

from flows import catalogue, submission
from flows.connection import connected, kept_open
from flows.flow_results import FlowResult
from flows.lifecycle import LifecycleFlow
from infra import connection
from infra.errors import RunFailedError
from registry.runs import run_retries, runs, statuses
from registry.runs.run_views import RunStatusView
from registry.views import View
from tasks import run_logs

R = TypeVar("R", bound=FlowResult, default=FlowResult)


class Run(Generic[R]):
    """A run that a pool executes, by its id; ``train.start(...)`` returns one.

    It stores nothing of the run: each use asks Prefect, and connects for it as a command does.

    Attributes:
        id: Prefect's id of the run.
    """

    def __init__(self, id: str) -> None:
        """Refer to the run ``id``, which is not looked up yet; :meth:`find` takes a name."""
        self.id = id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    @classmethod
    def find(cls, key: str) -> Run[Any]:
        """Find a run by its id, or by its name where only one run has it.

        Raises:
            NotFoundError: If there is none.
            ConflictError: If several runs have the name.
        """
        with connected():
            return cls(runs.find(key))

    @property
    def state(self) -> str:
        """The reference's word for its state, such as ``RUNNING`` or ``FAIL TRAIN``."""
        with connected():
            return runs.brief(self.id).state

    @property
    def url(self) -> str:
        """Its page in Prefect's UI."""
        with connected():
            return connection.run_page(self.id)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, however it ends.

        Args:
            timeout: How long, in seconds; None for as long as it takes.

        Returns:
            Whether it has ended.
        """
        with connected():
            return runs.wait(self.id, timeout)

    def logs(self, *, follow: bool = False) -> Iterator[str]:
        """Iterate over the lines of its log.

        Args:
            follow: Whether to wait for further lines until it has ended.
        """
        read = run_logs.follow if follow else run_logs.read
        with kept_open():
            lines: Iterator[str] | None = None
            while True:
                with connected():  # not while the caller does something else
                    lines = lines or read(self.id)
                    line = next(lines, None)
                if line is None:
                    return
                yield line

    def stop(self) -> RunStatusView:
        """Stop it, and wait until it has stopped.

        Raises:
            ConflictError: If it has ended already, or does not stop within a minute, on a
                cluster two.
        """
        with connected():
            return runs.stop(self.id)

    def retry(self) -> RunStatusView:
        """Have its pool run it again under its id, if it failed or was stopped.

        It resumes from its checkpoints.

        Raises:
            ConflictError: If it is active or complete, or was called in a process of its own,
                whose flow's ``retry`` runs it again.
            StackError: If no stack with workers is up.
        """
        with connected(to_workers=True):
            return run_retries.retry(self.id)

    def result(self, timeout: float | None = None) -> R:
        """Wait until it has ended, and return its result, which is empty without an MLflow run.

        Args:
            timeout: How long to wait, in seconds; None for as long as it takes.

        Raises:
            TimeoutError: If it has not ended by then.
            RunFailedError: If it ended in another state than COMPLETE. Its ``state`` is that
                state, and its ``code`` the one that the run failed with.
        """
        with connected():
            if not runs.wait(self.id, timeout):
                raise TimeoutError(f"The run {self.id} has not ended after {timeout:g} s.")
            found = runs.show(self.id)
            if found.state != statuses.COMPLETE:
                error = RunFailedError(
                    f"{found.flow} ended {found.state}: {found.message or 'no reason'}",
                    f"Its log: modelyard runs logs {self.id}. Once the cause is fixed, "
                    "Run.retry() resumes it.",
                    state=found.state,
                    code=found.error_code or None,
                )
                error.flow_run_id = self.id
                raise error
            items = found.result.to_json() if isinstance(found.result, View) else {}
            made = catalogue.result_type(found.flow)(
                items, flow_run_id=self.id, url=connection.run_page(self.id)
            )
            return cast("R", made)


def start(flow: LifecycleFlow[..., Any, R], given: Mapping[str, Any]) -> Run[R]:
    """Start a run of ``flow`` in its pool.

    Raises:
        ModelyardError: If the parameters are refused; no run exists then.
        StackError: If no stack with workers is up.
    """
    with connected(to_workers=True):
        return Run(submission.start(flow.name, dict(given)))
