"""Traces of requests by OpenTelemetry, where its variables ask for them.

A request is a span, and below it one of its waiting and one of its prediction. The parent is the
span that ``traceparent`` names, and the answer names its own in ``traceresponse``. OpenTelemetry
is imported only where traces are exported.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from modelyard_runtime import __version__
from modelyard_runtime.server.observation import RequestRecord

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}
_SERVICE = "modelyard-runtime"
_CONTEXT = frozenset({b"traceparent", b"tracestate"})
_FAILED = frozenset({"INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"})


def is_asked_for(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the variables of OpenTelemetry say where traces go."""
    return (
        any(environment.get(name) for name in _ENDPOINTS)
        and environment.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "otlp"
    )


def open_exporter(environment: Mapping[str, str] = os.environ) -> Any:
    """OpenTelemetry's exporter, which reads the other variables itself.

    Raises:
        ImportError: If its packages are not installed.
        ValueError: If the protocol is unknown.
    """
    protocol = next(filter(None, map(environment.get, _PROTOCOLS)), "http/protobuf")
    if protocol not in _EXPORTERS:
        raise ValueError(f"{_PROTOCOLS[1]} is {protocol!r}: give one of {', '.join(_EXPORTERS)}.")
    return importlib.import_module(_EXPORTERS[protocol]).OTLPSpanExporter()


class Tracing:
    """Makes spans of requests, and exports them in a thread of its own."""

    reads_scopes = True

    def __init__(self, exporter: Any) -> None:
        """Export to ``exporter``, one of OpenTelemetry's.

        Raises:
            ImportError: If OpenTelemetry's SDK is not installed.
        """
        from opentelemetry import trace  # noqa: PLC0415 (an extra)
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": _SERVICE}))
        # Not the process's own provider: that is the model's code's.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("modelyard_runtime", __version__)
        self._propagator = tracecontext.TraceContextTextMapPropagator()
        self._trace = trace
        self._no_context = Context()
        self._is_sampled = trace.TraceFlags.SAMPLED

    def on_begin(self, record: RequestRecord) -> None:
        """Begin a request's span, below the one that it names."""
        carried = {
            name.decode(): value.decode("latin-1")
            for name, value in record.scope.get("headers", ())
            if name in _CONTEXT
        }
        parent = self._no_context
        if carried:
            parent = self._propagator.extract(carried, parent)
        at = time.time_ns()
        span = self._tracer.start_span(
            record.protocol, parent, self._trace.SpanKind.SERVER, start_time=at
        )
        found = span.get_span_context()
        record.answer_headers.append((
            b"traceresponse",
            f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}".encode(),
        ))  # fmt: skip
        record.span = (span, at)
        if span.is_recording():
            record.batches = []

    def on_end(self, record: RequestRecord) -> None:
        """End it, with what is known of the request by now."""
        span, at = record.span
        if not span.is_recording():
            return
        span.update_name(f"{record.protocol} {record.method}")
        span.set_attributes(_attributes(record))
        if record.code[0] == "5" or record.code in _FAILED:
            span.set_status(self._trace.StatusCode.ERROR)
        within = self._trace.set_span_in_context(span, self._no_context)
        for batch in record.batches or ():
            times = [at + int((one - record.began) * 1e9)
                     for one in (batch.arrived, batch.began, batch.ended)]  # fmt: skip
            self._tracer.start_span("queue", within, start_time=times[0]).end(times[1])
            predict = self._tracer.start_span(
                "predict", within, start_time=times[1],
                attributes={"modelyard.batch.rows": batch.rows,
                            "modelyard.batch.requests": batch.requests},
            )  # fmt: skip
            predict.end(times[2])
        span.end(at + int(record.seconds * 1e9))

    def close(self) -> None:
        """Export what is not exported yet."""
        self._provider.shutdown()


def from_environment(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """The tracing that the variables ask for; None without, or without its packages."""
    if not is_asked_for(environment):
        return None
    try:
        return Tracing(open_exporter(environment))
    except ImportError as error:
        reason = f"{error}. Install modelyard-runtime[tracing]."
    except ValueError as error:
        reason = str(error)
    print(f"Traces are not exported: {reason}", file=sys.stderr, flush=True)
    return None


def _attributes(record: RequestRecord) -> Mapping[str, Any]:
    found: dict[str, Any] = {"modelyard.protocol": record.protocol}
    if record.model:
        found["modelyard.model"] = record.model
    if record.protocol == "grpc":
        return {**found, "rpc.system": "grpc", "rpc.method": record.method,
                "rpc.response.status_code": record.code}  # fmt: skip
    return {**found, "http.request.method": record.scope["method"],
            "url.path": record.scope["path"],
            "http.response.status_code": int(record.code)}  # fmt: skip
