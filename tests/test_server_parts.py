from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import structlog
from pydantic import ValidationError
from typer.testing import CliRunner

from server import logs
from server.api.negotiation import Form, answer_form
from server.cli import cli
from server.encoding import encode
from server.errors import NotAcceptableError
from server.image_format import ImageFormat
from server.request_id import REQUEST_ID
from server.settings import BUNDLED, load_settings

PNG, WEBP, JPEG = ImageFormat.PNG, ImageFormat.WEBP, ImageFormat.JPEG


@pytest.mark.parametrize(
    ("accept", "wanted", "n", "form"),
    [
        ("", None, 1, Form.JSON),
        ("*/*", None, 1, Form.JSON),
        ("application/json", WEBP, 1, Form.JSON),
        ("application/*", None, 1, Form.JSON),
        ("image/png", None, 1, PNG),
        ("image/webp", None, 1, WEBP),
        ("IMAGE/JPEG", None, 1, JPEG),
        ("image/*", None, 1, PNG),
        ("image/*", JPEG, 1, JPEG),
        ("image/png, */*", None, 1, PNG),
        ("image/png;q=0.5, application/json", None, 1, Form.JSON),
        ("image/png;q=0.5, image/webp;q=0.9", None, 1, WEBP),
        ("image/png;q=0, image/*", None, 1, WEBP),
        ("image/png, application/json", None, 2, Form.JSON),
        ("image/webp, application/json;q=0.1", PNG, 1, Form.JSON),
        ("text/event-stream", None, 2, Form.EVENTS),
        ("text/event-stream, */*;q=0.1", PNG, 1, Form.EVENTS),
        ("text/*", None, 1, Form.EVENTS),
    ],
)
def test_accept(accept: str, wanted: ImageFormat | None, n: int, form: Form | ImageFormat) -> None:
    assert answer_form(accept, wanted, n) is form


@pytest.mark.parametrize(
    ("accept", "wanted", "n"),
    [("image/png", None, 2), ("image/png", WEBP, 1), ("text/html", None, 1), ("image/png;q=x", None, 1)],
)
def test_an_accept_header_that_nothing_satisfies(accept: str, wanted: ImageFormat | None, n: int) -> None:
    with pytest.raises(NotAcceptableError, match="application/json"):
        answer_form(accept, wanted, n)


def test_the_bodys_stream_is_stronger_than_the_accept_header() -> None:
    assert answer_form("image/png", PNG, 1, stream=True) is Form.EVENTS
    assert answer_form("text/event-stream, */*;q=0.1", None, 1, stream=False) is Form.JSON
    with pytest.raises(NotAcceptableError):
        answer_form("text/event-stream", None, 1, stream=False)


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_equal_pixels_give_equal_files(image_format: ImageFormat) -> None:
    gradient = np.indices((32, 48)).transpose(1, 2, 0).repeat(2, axis=2)[:, :, :3].astype(np.uint8) * 5
    data = encode(gradient, image_format)
    assert data == encode(gradient.copy(), image_format)
    with PIL.Image.open(io.BytesIO(data)) as image:
        decoded = np.asarray(image).astype(int)
    assert decoded.shape == (32, 48, 3)
    assert np.abs(decoded - gradient).max() <= (0 if image_format is not JPEG else 24)


def test_settings_come_from_options_then_environment_then_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 1\nhost = "h"\nqueue_rows = 77\n[engine]\nmax_rows = 3\n')
    monkeypatch.setenv("DDO_PORT", "2")
    monkeypatch.setenv("DDO_HOST", "e")
    monkeypatch.setenv("DDO_MODELS", "one, two")
    monkeypatch.setenv("DDO_ENGINE__THREADS", "1")
    settings = load_settings(file, port=3)
    assert (settings.port, settings.host, settings.queue_rows) == (3, "e", 77)
    assert settings.models == ("one", "two")
    assert (settings.engine.max_rows, settings.engine.threads) == (3, 1)


def test_defaults_listen_on_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.models == (f"{BUNDLED}/emoji-edm/all", f"{BUNDLED}/emoji-var/all")


@pytest.mark.parametrize(
    "text", ['port = "x"', "prot = 1", "port = 70000", "queue_rows = 3", "models = []", "[engine]\nrows = 1"]
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ValidationError):
        load_settings(file)


@pytest.fixture
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("root_logger")
def test_logs_are_one_json_object_a_line_and_hold_no_secret() -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    log = structlog.get_logger("test")
    log.debug("unseen")
    request = REQUEST_ID.set("r1")
    log.info("seen", hf_token="abc123", settings={"API_KEY": "abc123", "port": 1})
    logging.getLogger("a.package").warning("from %s", "outside")
    REQUEST_ID.reset(request)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        log.exception("failed")
    first, second, third = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["request_id"]) == ("seen", "info", "r1")
    assert (first["hf_token"], first["settings"]) == ("***", {"API_KEY": "***", "port": 1})
    assert (second["event"], second["logger"], second["request_id"]) == ("from outside", "a.package", "r1")
    assert "RuntimeError: broken" in third["exception"]
    assert "request_id" not in third
    assert re.match(r"\d{4}-\d\d-\d\dT", first["timestamp"])
    assert "abc123" not in stream.getvalue()


@pytest.mark.usefixtures("root_logger")
def test_people_at_a_terminal_get_lines_of_words() -> None:
    stream = Terminal()
    logs.configure("info", stream)
    structlog.get_logger("test").info("hello", port=1)
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--model", "nowhere"], 1, "nowhere"),
        (["--port", "99999"], 2, "port"),
        (["--config", "nowhere.toml"], 2, "nowhere.toml"),
        (["--host", "0.0.0.0"], 1, "DDO_ACCESS__KEYS"),
    ],
)
def test_a_server_that_cannot_start_says_why(options: list[str], code: int, says: str) -> None:
    result = CliRunner().invoke(cli, options)
    assert result.exit_code == code
    assert says in result.output
