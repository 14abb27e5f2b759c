"""`python -m engines`: build engines ahead of time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from engines.errors import EngineError
from engines.export.onnx import OnnxCache
from engines.tensorrt.api import tensorrt
from engines.tensorrt.build import Workshop
from engines.tensorrt.builder import Target
from engines.tensorrt.progress import ProgressSteps
from engines.tensorrt.record import DTYPES, Precision
from engines.tensorrt.store import EngineStore, StoredEngine
from engines.version_programs import programs_of
from models.command_line import group_that_reports
from models.errors import ModelError
from models.references import open_reference

app = typer.Typer(
    cls=group_that_reports(EngineError, ModelError),
    no_args_is_help=True,
    add_completion=False,
    help=__doc__,
)

_ENGINES = Path("compiled")
_REGISTRY = Path("registry")


@app.callback()
def engines() -> None:
    """Build engines ahead of time."""


@app.command()
def build(
    model: Annotated[
        str, typer.Argument(help="NAME, NAME/VERSION or NAME/all of the registry, or a version's folder.")
    ],
    *,
    backend: Annotated[Literal["tensorrt"], typer.Option(help="What the engines are for.")] = "tensorrt",
    precision: Annotated[Precision, typer.Option(help="Of convolutions and transformer layers.")] = "fp16",
    capability: Annotated[
        list[str] | None,
        typer.Option(help="A GPU to build for, e.g. sm89; may be repeated. Default: all that there are."),
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Most images of one call.")] = 8,
    native_cache: Annotated[
        bool, typer.Option("--native-cache", help="VAR: keep keys and values in TensorRT's own cache layers.")
    ] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="Let the engine take new weights; only on a host with a GPU.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="fp16: compare each export with its network first; takes minutes.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the engines.")] = _ENGINES,
    registry: Annotated[
        Path, typer.Option("--registry", help="Folder of the registry.", envvar="DDO_REGISTRY")
    ] = _REGISTRY,
) -> None:
    """Build the engines of a model's programs, ahead of time where the package can."""
    del backend  # there is one as yet that builds ahead of time
    api = tensorrt()
    target = Target.of(api, capability or (), refittable=refit)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    for version in open_reference(model, registry):
        programs = programs_of(version, DTYPES[precision], max_rows=max_rows, native_cache=native_cache)
        with Progress(*columns, console=console, transient=True) as progress:
            shop = Workshop(
                api=api,
                exports=OnnxCache(out / "onnx"),
                store=EngineStore(out),
                steps=ProgressSteps(progress),
                checked=check,
            )
            made = [shop.make(version, program, precision=precision, target=target) for program in programs]
        _report(made)


def _report(engines: list[StoredEngine]) -> None:
    table = Table("program", "precision", "GPUs", "profiles", "MB", "s", "peak MB", "file", box=None)
    for engine in engines:
        made = engine.record
        table.add_row(
            made.program,
            made.precision,
            " ".join(made.capabilities) or "this one",
            str(len(made.profiles)),
            f"{made.size / 1e6:.0f}",
            f"{made.seconds:.0f}",
            f"{made.peak_bytes / 1e6:.0f}",
            str(engine.path),
        )
    Console(width=200).print(table)
