"""Tags of evaluations' MLflow runs, by which they belong to a version of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from infra.mlflow import MlflowRun, RegisteredModel
from registry import tracking
from registry.evaluation_results import EVALUATED_TAG


def of_version(uri: str) -> Iterator[MlflowRun]:
    """Complete evaluations of ``models:/NAME/VERSION``, the newest first."""
    return _search(
        f"tags.`{EVALUATED_TAG}` = {_quoted(uri)} AND attributes.status = 'FINISHED'",
        ["attributes.start_time DESC"],
    )


def follow_rename(model: RegisteredModel, before: str) -> None:
    """Have the evaluations of a renamed model name it as it is called now.

    Evaluations of an earlier model of the name ``before``, which was deleted, keep that. A repeat
    ends what was interrupted.
    """
    prefix = f"models:/{before}/"
    # All before any is changed, since a page begins where the one before it ended.
    for run in list(_search(f"tags.`{EVALUATED_TAG}` LIKE {_quoted(f'{prefix}%')}")):
        uri = run.data.tags.get(EVALUATED_TAG, "")
        made_later = (run.info.start_time or 0) >= (model.creation_timestamp or 0)
        if uri.startswith(prefix) and made_later:  # in a pattern "_" is any letter
            version = uri.removeprefix(prefix)
            tracking.client().set_tag(
                run.info.run_id, EVALUATED_TAG, f"models:/{model.name}/{version}"
            )


def _search(condition: str, order_by: Sequence[str] = ()) -> Iterator[MlflowRun]:
    mlflow = tracking.client()
    experiments = [
        str(one.experiment_id)
        for one in tracking.paged(lambda token: mlflow.search_experiments(page_token=token))
    ]
    return tracking.paged(
        lambda token: mlflow.search_runs(
            experiments, condition, order_by=order_by, page_token=token
        )
    )


def _quoted(text: str) -> str:
    quote = '"' if "'" in text else "'"
    return f"{quote}{text}{quote}"
