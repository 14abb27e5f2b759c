"""How a server is configured: command line, then environment (`DDO_...`), then a TOML file, then defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from engines.settings import EngineSettings
from server.access.settings import AccessSettings
from server.edge.settings import ConnectionSettings
from server.jobs.settings import JobSettings
from server.scheduling.policy import PolicyName

BUNDLED = Path(__file__).resolve().parent.parent / "assets"


class Settings(BaseSettings):
    """The configuration of one server process.

    Attributes:
        host, port: where to listen; port 0 takes a free one.
        models: what to serve, each as `models.references` reads it: `NAME`, `NAME/2`, `NAME/all` or a
            directory. The first one is the default of requests that name no model, and a name's first
            version that of requests that give none. The environment takes a list with commas.
        registry: the directory of the registry that names are looked up in.
        engine: backend, device, precision, threads and rows of every engine (`DDO_ENGINE__DEVICE`).
        access: API keys and who else may come in (`DDO_ACCESS__KEYS`).
        memory_bytes: memory of all engines together: weights and states. To load one more, the version that
            was idle for the longest leaves, and comes back with its next request. None: no limit.
        registry_poll_s: seconds between two looks at the registry's pointers.
        connection: TLS, and what a connection may be (`DDO_CONNECTION__CERTFILE`).
        queue_rows: images that may wait for a place in an engine, all models together.
        policy: order of rows: `throughput` (first come, first served, full calls), `latency` (short requests
            first) or `deadline` (earliest deadline first; without deadlines first come, first served).
        pending_s: engine seconds that accepted images may need, all models together; an idle server takes any
            request.
        max_images: images that one request may ask for.
        max_steps: sampler steps that one request may ask for.
        deadline_ms: milliseconds that a request may take; a request may ask for less.
        body_bytes: longest request body, in bytes.
        body_timeout_s: seconds in which a request's body has to arrive.
        encoder_threads: threads that encode images.
        heartbeat_s: seconds between signs of life in a stream of events.
        shutdown_timeout_s: seconds that clients have to read their answers once all are computed.
        jobs: directory and bounds of jobs (`DDO_JOBS__DIRECTORY`).
        log_level: least level that is logged.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="DDO_", env_nested_delimiter="__"
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(f"{BUNDLED}/emoji-edm/all", f"{BUNDLED}/emoji-var/all"), min_length=1
    )
    registry: Path = Path("registry")
    engine: EngineSettings = EngineSettings()
    access: AccessSettings = AccessSettings()
    memory_bytes: int | None = Field(default=None, ge=1)
    registry_poll_s: float = Field(default=1.0, gt=0)
    connection: ConnectionSettings = ConnectionSettings()
    queue_rows: int = Field(default=512, ge=1)
    policy: PolicyName = PolicyName.DEADLINE
    pending_s: float = Field(default=120.0, gt=0)
    max_images: int = Field(default=16, ge=1)
    max_steps: int = Field(default=1000, ge=1)
    deadline_ms: int = Field(default=120_000, ge=1)
    body_bytes: int = Field(default=65_536, ge=1)
    body_timeout_s: float = Field(default=10.0, gt=0)
    encoder_threads: int = Field(default=2, ge=1)
    heartbeat_s: float = Field(default=15.0, gt=0)
    shutdown_timeout_s: int = Field(default=30, ge=1)
    jobs: JobSettings = Field(default_factory=JobSettings)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_request_fits(self) -> Settings:
        if self.max_images > self.queue_rows:
            raise ValueError(
                f"max_images {self.max_images} is more than queue_rows {self.queue_rows} can hold"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources, strongest first."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(file: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings.

    Args:
        file: a TOML file, if any.
        overrides: values that win over environment and file.

    Raises:
        pydantic.ValidationError: a value that is not allowed, or an unknown key in the file.
    """

    class FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    return FileSettings(**overrides)
