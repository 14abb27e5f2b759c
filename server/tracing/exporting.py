"""Tracing as OpenTelemetry's own environment variables configure it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.tracing.tracing import Tracing

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class TracingError(ValueError):
    """Tracing is configured, but not so that it can be."""


def is_configured(environ: Mapping[str, str]) -> bool:
    """Return whether these variables ask for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").lower()
    return exporter != "none" if exporter else any(environ.get(name) for name in ENDPOINTS)


def open_tracing(environ: Mapping[str, str]) -> Tracing | None:
    """Return what makes spans and sends them, or None if these variables do not ask for it.

    Args:
        environ: the process' environment, which OpenTelemetry's SDK reads too: endpoint, headers, sampler.

    Raises:
        TracingError: the extra `tracing` is not installed, or the exporter is none that it has.
    """
    if not is_configured(environ):
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").lower() or "otlp"
    if exporter not in ("otlp", "console"):
        raise TracingError(
            f"OTEL_TRACES_EXPORTER is {exporter!r}; there are otlp (over HTTP), console and none"
        )
    try:
        # Imported here: the server runs without them, and smaller.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415

        from server.tracing.tracing import Tracing  # noqa: PLC0415
    except ImportError:
        raise TracingError("traces are asked for; they need `pip install 'ddo-serve[tracing]'`") from None
    name = {} if environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "ddo-serve"}
    provider = TracerProvider(resource=Resource.create(name), shutdown_on_exit=False)
    chosen = OTLPSpanExporter() if exporter == "otlp" else ConsoleSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(chosen))
    return Tracing(provider, provider.shutdown)
