"""When the registry's pointer moves, the server follows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog

from models.errors import ModelError
from server.errors import NotReadyError, ServeError
from server.hosting.catalogue import Catalogue
from server.hosting.host import Host
from server.hosting.sources import Source

log = structlog.get_logger(__name__)


class Follower:
    """Looks at the pointers of models whose current version is served.

    It looks at the pointer's inode and time, which any file system has, a network's too. A version that was
    refused is tried again only when the pointer has been written again.
    """

    def __init__(
        self, catalogue: Catalogue, host: Host, sources: Iterable[Source], interval_s: float
    ) -> None:
        """Follow the sources that want it, looking every `interval_s` seconds."""
        self._catalogue = catalogue
        self._host = host
        self._sources = [source for source in sources if source.follows]
        self._interval_s = interval_s
        self._seen: dict[str, tuple[int, int] | None] = {}

    async def run(self) -> None:
        """Follow for ever."""
        while self._sources:
            for source in self._sources:
                await self._look(source)
            await asyncio.sleep(self._interval_s)

    async def _look(self, source: Source) -> None:
        stamp = await asyncio.to_thread(source.registry.pointer_stamp, source.name)
        if stamp is None or stamp == self._seen.get(source.name):
            return
        try:
            await self._follow(source)
        except NotReadyError:
            return  # there was no room; there may be at the next look
        except ServeError:
            pass  # the host has logged why and remembers it
        except (ModelError, OSError) as error:
            log.error("the pointer cannot be read", model=source.name, reason=str(error))
        self._seen[source.name] = stamp

    async def _follow(self, source: Source) -> None:
        number = await asyncio.to_thread(source.registry.current, source.name)
        default = self._catalogue.find(source.name)
        if number != default.key.number or default.failed:
            await self._host.switch(source.name, number)
