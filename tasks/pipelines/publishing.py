"""Publication of a pipeline's outputs in MLflow: metrics, plots, reports, small files, a table.

It happens in the background while the run is active. A file of the run records which leaves are
published, so that a retry publishes the remaining ones only.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import ModelyardError
from infra.storage import store
from infra.texts import make_storable
from pipelines.artifacts import Artifact, Bundle
from pipelines.executor_io import local_path
from pipelines.node_positions import NodePosition, NodePositions
from registry.mlflow_writer import MetricValue, MlflowWriter
from tasks.pipelines import classification, metric_names

TABLE = "artifacts.json"
OUTPUTS = "outputs.json"
FILES, PLOTS, REPORTS, LOGS = "artifacts", "plots", "reports", "logs"
OUTPUT_TAG = "modelyard.output."

_REPORTS = {"system.HTML": ".html", "system.Markdown": ".md"}
_DONE = "published.jsonl"
_MOST_ROWS = 10_000
_MOST_PLOTTED = 50  # artifacts of a run; drawing each takes processor time
_MOST_FILES = 1000  # of one artifact
_MOST_IN_ALL = 64  # limit of a run, in artifacts of the largest allowed size
_LONGEST_METADATA = 10_000
_LONGEST_TAG = 1000
_LAST_SECONDS = 60.0


@dataclass(frozen=True)
class LeafResult:
    """Result of a leaf that succeeded.

    Attributes:
        path: Path of the leaf.
        outputs: Its outputs.
        kept: Whether it succeeded in an earlier attempt of the run.
    """

    path: str
    outputs: Bundle
    kept: bool = False


class Publisher:
    """Publishes the outputs of one run's leaves; thread-safe."""

    def __init__(
        self,
        run_id: str,
        places: NodePositions,
        folder: Path,
        *,
        largest: int,
        warn: Callable[[str], object],
        root: str = "",
        drawn: Callable[[str, Mapping[str, Any]], Mapping[str, bytes]] = classification.plots,
    ) -> None:
        """Prepare for a first attempt or a retry.

        Args:
            run_id: The MLflow run.
            places: Places of the pipeline's nodes.
            folder: Folder of the run, below that of all runs.
            largest: Size in bytes up to which the files of an artifact are uploaded.
            warn: Called with a message for everything that could not be published.
            root: URI of the folder of the run's artifacts, if they are in a store; else "".
            drawn: Draws plots of metadata, given their schema.
        """
        self._run_id = run_id
        self._writer = MlflowWriter(warn)
        self._places = places
        self._runs = folder.parent.resolve()
        self._folder = folder
        self._largest = largest
        self._left = largest * _MOST_IN_ALL
        self._plots_left = _MOST_PLOTTED
        self._root = root
        self._drawn = drawn
        self._lock = threading.Lock()
        self._done = folder / _DONE
        self._rows: dict[str, list[dict[str, Any]]] = dict(_read(self._done))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table of artifacts, by tasks and names."""
        with self._lock:
            return [row for path in sorted(self._rows) for row in self._rows[path]]

    def publish(self, leaf: LeafResult) -> None:
        """Publish the outputs of a leaf in the background."""
        with self._lock:
            known = leaf.kept and leaf.path in self._rows
        if known or not leaf.outputs.artifacts:
            return
        at = time.time()
        rows: list[dict[str, Any]] = []

        def write() -> None:
            rows[:] = [self._publish(leaf, name, one, at) for name, one in _each(leaf.outputs)]

        self._writer.submit(f"the outputs of {leaf.path}", write, lambda: self._record(leaf, rows))

    def _record(self, leaf: LeafResult, rows: list[dict[str, Any]]) -> None:
        with self._lock:
            self._rows[leaf.path] = list(rows)
        with self._done.open("a") as file:
            file.write(json.dumps({"path": leaf.path, "rows": rows}) + "\n")

    def close(self, outputs: Mapping[str, Any], logs: Path | None = None) -> None:
        """Publish the pipeline's own outputs, and wait for all publications, up to a minute.

        Args:
            outputs: Output parameters of the pipeline.
            logs: Log file to upload; None for none.
        """
        tags = {
            f"{OUTPUT_TAG}{metric_names.sanitize(name)}": make_storable(text)
            for name, value in outputs.items()
            if len(text := value if isinstance(value, str) else _dumped(value)) <= _LONGEST_TAG
        }
        if outputs:
            self._writer.submit("the outputs", lambda: self._text(OUTPUTS, _dumped(outputs)))
            self._writer.submit(
                "the outputs as tags", lambda: self._writer.write_tags(self._run_id, tags)
            )
        if logs is not None and logs.exists():
            self._writer.submit("the log", lambda: self._writer.upload(self._run_id, logs, LOGS))
        self._writer.submit("the table of artifacts", self._publish_table)
        self._writer.close(_LAST_SECONDS, "The files themselves are in the run's folder.")

    def _publish_table(self) -> None:
        rows = self.rows
        if rows:
            self._text(TABLE, json.dumps(rows[:_MOST_ROWS], indent=1))

    def _text(self, name: str, text: str, folder: str = "") -> None:
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            Path(place, name).write_text(text)
            self._writer.upload(self._run_id, Path(place, name), folder)

    # An artifact

    def _publish(self, leaf: LeafResult, name: str, one: Artifact, at: float) -> dict[str, Any]:
        """Publish an artifact; its row of the table."""
        spot = self._places.of(leaf.path)
        own = f"{metric_names.sanitize(leaf.path)}/{metric_names.sanitize(name)}"
        metadata = dict(one.metadata)
        if one.schema == metric_names.METRICS:
            self._metrics(spot, leaf.path, name, metadata, at)
        elif one.schema in {classification.WHOLE, classification.SLICED}:
            self._classification(one.schema, own, metadata)
        uploaded = ""
        with self._files(one.uri) as (path, size):
            if path is not None and size is not None and 0 < size <= self._most:
                uploaded = self._upload(one, own, path)
                self._left -= size
        return {
            "task": leaf.path, "name": name, "type": one.schema, "uri": one.uri,
            "size": size, "mlflow": uploaded or None, "metadata": _short(metadata),
        }  # fmt: skip

    def _metrics(
        self,
        spot: NodePosition | None,
        path: str,
        name: str,
        metadata: Mapping[str, Any],
        at: float,
    ) -> None:
        prefix, step = metric_names.prefix(self._places, spot, path, name)
        values = [
            MetricValue(f"{prefix}/{key}", value, step, at)
            for key, value in metric_names.finite_numbers(metadata)
        ]
        self._writer.write_metrics(self._run_id, values)

    def _classification(self, schema: str, own: str, metadata: Mapping[str, Any]) -> None:
        folder, _, name = own.rpartition("/")
        self._text(f"{name}.json", _dumped(metadata), f"{PLOTS}/{folder}")
        if self._plots_left <= 0:
            return
        with tempfile.TemporaryDirectory(dir=self._folder) as place:
            for what, png in self._drawn(schema, metadata).items():
                Path(place, f"{name}-{what}.png").write_bytes(png)
            if any(Path(place).iterdir()):
                self._writer.upload(self._run_id, Path(place), f"{PLOTS}/{folder}")
                self._plots_left -= 1

    def _upload(self, one: Artifact, own: str, path: Path) -> str:
        """Upload the files of an artifact; their path among the run's artifacts."""
        folder, _, name = own.rpartition("/")
        ending = _REPORTS.get(one.schema)
        if ending is not None and path.is_file():
            with tempfile.TemporaryDirectory(dir=self._folder) as place:
                report = Path(place, f"{name}{ending}")
                shutil.copyfile(path, report)
                self._writer.upload(self._run_id, report, f"{REPORTS}/{folder}")
            return f"{REPORTS}/{folder}/{name}{ending}"
        if path.is_dir():
            self._writer.upload(self._run_id, path, f"{FILES}/{own}")
            return f"{FILES}/{own}"
        self._writer.upload(self._run_id, path, f"{FILES}/{folder}")
        return f"{FILES}/{folder}/{path.name}"

    @property
    def _most(self) -> int:
        """Size in bytes up to which the next artifact is uploaded."""
        return min(self._largest, self._left)

    @contextmanager
    def _files(self, uri: str) -> Iterator[tuple[Path | None, int | None]]:
        """Yield the local path of an artifact of the run, and its size in bytes.

        The files of an artifact in a store are fetched for the while if they are small enough.
        """
        path = self._own(uri)
        if path is not None or not self._root or not uri.startswith(f"{self._root}/"):
            yield path, None if path is None else _size(path)
            return
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            place = Path(folder, uri.rpartition("/")[2])
            try:
                found = store(uri)
                size = sum(entry.size for entry in found.entries())
                if 0 < size <= self._most:
                    found.fetch(place)
            except ModelyardError:  # the table has the artifact's URI all the same
                size = 0
            yield (place, _size(place)) if place.exists() else (None, size or None)

    def _own(self, uri: str) -> Path | None:
        """Local path of an artifact that a task has created; None for an imported one."""
        path = local_path(uri)
        if path is None or path.is_symlink() or not path.exists():
            return None
        return path if path.resolve().is_relative_to(self._runs) else None


def _each(outputs: Bundle) -> Iterator[tuple[str, Artifact]]:
    for name, value in outputs.artifacts.items():
        if isinstance(value, list):
            yield from ((f"{name}-{number}", one) for number, one in enumerate(value))
        else:
            yield name, value


def _size(path: Path) -> int | None:
    """Size of a file or a folder in bytes; None if MLflow cannot store it.

    MLflow cannot store links, names that do not survive in a URL, or very many files.
    """
    if path.is_file():
        return path.stat().st_size if _is_kept(path) else None
    total = 0
    for number, found in enumerate(path.rglob("*")):
        if found.is_symlink() or number >= _MOST_FILES or not _is_kept(found):
            return None
        total += found.stat().st_size if found.is_file() else 0
    return total


def _is_kept(path: Path) -> bool:
    return path.name.isprintable() and not set(path.name) & set("#?%")


def _short(metadata: Mapping[str, Any]) -> Any:
    text = _dumped(metadata)
    return metadata if len(text) <= _LONGEST_METADATA else f"{text[:_LONGEST_METADATA]}..."


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _read(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Read what earlier attempts have published; lines that a kill has truncated are skipped."""
    if not path.exists():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        yield found["path"], found["rows"]
