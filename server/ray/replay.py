"""A stream of events that is told again by another replica, joined to what its client has seen."""

from __future__ import annotations

import json


class Replay:
    """Lets each event of a request through once, however many replicas have begun to tell it.

    The same request gives the same images, so what the next replica tells of those that were sent is no news.
    """

    def __init__(self) -> None:
        """Begin with a client that has seen nothing."""
        self._queued = False
        self._images: set[int] = set()

    def news(self, chunk: bytes) -> bool:
        """Return whether a chunk, one event or comment as our server sends them, is to be passed on."""
        fields = dict(line.split(": ", 1) for line in chunk.decode().splitlines() if ": " in line)
        match fields.get("event"):
            case "queued":
                seen, self._queued = self._queued, True
                return not seen
            case "image" | "preview" as event:
                index: int = json.loads(fields["data"])["index"]
                seen = index in self._images
                if event == "image":
                    self._images.add(index)
                return not seen
            case _:
                return True
