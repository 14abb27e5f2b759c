"""Pinned npm packages as local tarballs."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import Field

from models.frozen import FrozenModel
from trainer.errors import PackageError


class NpmPackage(FrozenModel):
    """One published version of a package.

    Attributes:
        name: with its scope, e.g. `@scope/package`.
        version: exact, no range.
        integrity: what the registry publishes as `dist.integrity`: `sha512-` and the digest in base64.
    """

    name: str = Field(pattern=r"^(@[a-z0-9._-]+/)?[a-z0-9._-]+$")
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    integrity: str = Field(pattern=r"^sha512-[A-Za-z0-9+/]{86}==$")

    @property
    def spec(self) -> str:
        """What npm's command line calls this version."""
        return f"{self.name}@{self.version}"

    @property
    def filename(self) -> str:
        """What `npm pack` calls the tarball."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def path(self) -> str:
        """Where every npm registry keeps the tarball."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"

    def check(self, tarball: Path) -> None:
        """Compare the file with the pinned digest; raises PackageError."""
        digest = hashlib.sha512(tarball.read_bytes()).digest()
        found = f"sha512-{base64.b64encode(digest).decode()}"
        if found != self.integrity:
            raise PackageError(
                f"{tarball} is not {self.spec}: its integrity is {found}, not {self.integrity}"
            )


@dataclass(frozen=True)
class TarballStore:
    """A folder of tarballs that fills itself on demand. Files may also be placed there by hand.

    Attributes:
        directory: the folder.
        npm: the npm command, which knows its own registry, proxies and credentials; None: there is none.
        registry: address of a registry, asked over HTTPS where there is no npm command.
    """

    directory: Path
    npm: str | None = None
    registry: str | None = None

    def get(self, package: NpmPackage) -> Path:
        """Return the checked tarball of `package`; raises PackageError."""
        tarball = self.directory / package.filename
        if not tarball.exists():
            self._download(package, tarball)
        package.check(tarball)
        return tarball

    def _download(self, package: NpmPackage, tarball: Path) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            fresh = Path(scratch) / package.filename
            try:
                if self.npm is not None:
                    _pack(self.npm, package, fresh)
                elif self.registry is not None:
                    _fetch(f"{self.registry.rstrip('/')}/{package.path}", fresh)
                else:
                    raise PackageError("there is no npm command and NPM_CONFIG_REGISTRY is not set")
            except (PackageError, httpx.HTTPError, OSError) as error:
                raise PackageError(
                    f"{package.spec} could not be downloaded: {error}. On a machine with network access run "
                    f"`npm pack {package.spec}` and place {package.filename} in {self.directory}"
                ) from error
            package.check(fresh)
            fresh.replace(tarball)


def _pack(npm: str, package: NpmPackage, tarball: Path) -> None:
    command = [npm, "pack", package.spec, "--silent", "--pack-destination", str(tarball.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not tarball.exists():
        raise PackageError(f"`{' '.join(command)}` failed: {done.stderr.strip() or done.returncode}")


def _fetch(url: str, tarball: Path) -> None:
    with (
        httpx.stream("GET", url, follow_redirects=True, timeout=60) as response,
        tarball.open("wb") as file,
    ):
        response.raise_for_status()
        for chunk in response.iter_bytes():
            file.write(chunk)
