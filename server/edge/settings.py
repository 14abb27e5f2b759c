"""What a connection may be."""

from __future__ import annotations

import ssl

from pydantic import Field, FilePath, model_validator

from models.frozen import FrozenModel


class ConnectionSettings(FrozenModel):
    """How connections are bounded and encrypted.

    Attributes:
        certfile, keyfile: TLS certificate chain and private key, in PEM; the certificate's file may hold
            both. Without them the server speaks plain HTTP.
        connections: connections at one time; more are answered 503.
        header_bytes: longest head of a request, its first line included, in bytes.
        header_timeout_s: seconds in which a request's head has to arrive.
        read_timeout_s: seconds in which a client has to take some of an answer that waits for it.
    """

    certfile: FilePath | None = None
    keyfile: FilePath | None = None
    connections: int = Field(default=1000, ge=1)
    header_bytes: int = Field(default=32_768, ge=1024)
    header_timeout_s: float = Field(default=10.0, gt=0)
    read_timeout_s: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _certificate_fits(self) -> ConnectionSettings:
        if self.certfile is None:
            if self.keyfile is not None:
                raise ValueError("keyfile needs certfile")
            return self
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certfile, self.keyfile)
        except OSError as error:  # ssl.SSLError is one.
            raise ValueError(f"certfile and keyfile cannot be used for TLS: {error}") from None
        return self
