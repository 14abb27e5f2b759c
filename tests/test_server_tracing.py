from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from fake_engine import FakeEngine
from fake_server import serving_app, version, wait_until_ready
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from server.app import create_app
from server.settings import Settings
from server.tracing.exporting import TracingError, open_tracing
from server.tracing.tracing import Tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def client(spans: InMemorySpanExporter) -> Iterator[httpx.Client]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    engine = FakeEngine(fail_class=3)
    tracing = Tracing(provider, provider.shutdown)
    app = create_app(Settings(), [version()], lambda *_: engine, tracing=tracing)
    with serving_app(app) as url, httpx.Client(base_url=url) as client:
        wait_until_ready(client)
        spans.clear()
        yield client


def children(spans: InMemorySpanExporter, parent: ReadableSpan) -> list[ReadableSpan]:
    finished = spans.get_finished_spans()
    return [span for span in finished if span.parent and span.parent.span_id == parent.context.span_id]


def of_request(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = [span for span in spans.get_finished_spans() if span.name == name]
    return span


def test_a_request_is_told_phase_by_phase(client: httpx.Client, spans: InMemorySpanExporter) -> None:
    answer = client.post(
        "/generate",
        json={"class_id": 1, "n": 2, "steps": 3},
        headers={"X-Request-ID": "mine", "traceparent": f"00-{TRACE}-{PARENT}-01"},
    )
    assert answer.status_code == 200
    request = of_request(spans, "POST /generate")
    assert request.kind is SpanKind.SERVER
    assert format(request.context.trace_id, "032x") == TRACE
    assert request.parent and format(request.parent.span_id, "016x") == PARENT
    told = dict(request.attributes or {})
    assert told["http.response.status_code"] == 200
    assert (told["ddo.model"], told["ddo.version"], told["ddo.images"]) == ("fake", 3, 2)
    assert told["ddo.request_id"] == "mine"
    for index in (0, 1):
        phases = [span for span in children(spans, request) if (span.attributes or {})["ddo.image"] == index]
        assert [span.name for span in phases] == ["queue", "calls", "decode", "encode"]
        times = [time for span in phases for time in (span.start_time or 0, span.end_time or 0)]
        assert (request.start_time or 0) <= times[0] + 1_000_000
        assert times == sorted(times)
        assert times[-1] <= (request.end_time or 0) + 1_000_000
        (calls,) = [span for span in phases if span.name == "calls"]
        assert (calls.attributes or {})["ddo.calls"] == 3
        assert [dict(event.attributes or {})["ddo.rows"] for event in calls.events] == [2, 2, 2]
        assert all((span.attributes or {})["ddo.request_id"] == "mine" for span in phases)


@pytest.mark.parametrize(
    ("body", "status", "phases"),
    [({"class_id": 9}, 422, []), ({"class_id": 3}, 500, ["queue"])],
)
def test_a_request_that_fails_is_told_as_far_as_it_came(
    client: httpx.Client, spans: InMemorySpanExporter, body: dict[str, int], status: int, phases: list[str]
) -> None:
    assert client.post("/generate", json=body).status_code == status
    request = of_request(spans, "POST /generate")
    assert (request.attributes or {})["http.response.status_code"] == status
    assert (request.status.status_code is StatusCode.ERROR) == (status >= 500)
    assert [span.name for span in children(spans, request)] == phases


def test_probes_are_not_traced_and_paths_go_by_their_routes(
    client: httpx.Client, spans: InMemorySpanExporter
) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/models/fake", "/nope"):
        client.get(path)
    assert {span.name for span in spans.get_finished_spans()} == {"GET /models/{name}", "GET"}


@pytest.mark.parametrize(
    ("environ", "configured"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"}, True),
    ],
)
def test_the_standard_variables_turn_tracing_on(environ: dict[str, str], configured: bool) -> None:
    tracing = open_tracing(environ)
    assert (tracing is not None) == configured
    if tracing:
        tracing.shutdown()


def test_an_exporter_that_is_not_there_is_refused() -> None:
    with pytest.raises(TracingError, match="otlp"):
        open_tracing({"OTEL_TRACES_EXPORTER": "zipkin"})


def test_without_tracing_the_sdk_is_not_even_imported() -> None:
    code = (
        "import sys, server.app, server.run; from server.tracing.exporting import open_tracing\n"
        "assert open_tracing({}) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
