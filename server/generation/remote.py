"""Images from a server."""

from __future__ import annotations

from typing import cast

from rich.progress import Progress

from server.client import Client, ClientError, Done, StreamedImage
from server.client.options import GenerateOptions
from server.generation.order import GenerationError, Made, MadeImage, Order
from server.hosting.version_key import VersionKey

# What a server takes in one request unless its settings say otherwise.
IMAGES_A_REQUEST = 16


def make_remotely(order: Order, url: str, api_key: str | None, progress: Progress) -> Made:
    """Have a server make the images of an order, in as many requests as it takes.

    Raises:
        GenerationError: the server cannot be reached, or refuses.
    """
    wanted = order.sampling.model_dump(exclude_none=True)
    task = progress.add_task("images", total=order.n)
    images: list[MadeImage] = []
    try:
        with Client(url, api_key=api_key) as client:
            while len(images) < order.n:
                count = min(IMAGES_A_REQUEST, order.n - len(images))
                seed = images[-1].seed + 1 if images else order.seed
                options = wanted | {"n": count, "format": order.format}
                options |= {} if seed is None else {"seed": seed}
                found: dict[int, MadeImage] = {}
                for event in client.stream(
                    order.class_name, preview={"limit": 0}, **cast(GenerateOptions, options)
                ):
                    if isinstance(event, StreamedImage):
                        found[event.index] = MadeImage(event.seed, event.data)
                        progress.advance(task)
                    elif isinstance(event, Done):
                        done = event
                        # The images of one order are of one version, whatever the server is told meanwhile.
                        wanted |= {"model": event.model, "version": event.version}
                images += (found[index] for index in range(count))
    except ClientError as error:
        raise GenerationError(str(error)) from error
    return Made(tuple(images), str(VersionKey(done.model, done.version)), done.parameters.class_name)
