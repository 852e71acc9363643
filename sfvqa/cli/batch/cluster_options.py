"""The options of `sfvqa batch` about a Ray cluster, and what they mean together."""

from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from sfvqa.batch.cluster.options import ClusterOptions

_CLUSTER = "More than one machine or GPU (needs sfvqa\\[ray])"  # a bracket of markup, unless it is escaped

Ray = Annotated[
    bool,
    typer.Option(
        "--ray",
        metavar="",
        help="Answer on the workers of a Ray cluster: the one of RAY_ADDRESS, one that `ray start` began on this "
        "machine, or one that is started here and ended again. Nodes open the videos by the same paths, and have the "
        "model.",
        rich_help_panel=_CLUSTER,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="ADDRESS",
        help="The cluster at HOST:PORT; implies --ray.",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        envvar="SFVQA_WORKERS",
        min=1,
        help="Have N workers with a model each (default: one a GPU, without GPUs one a node).",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        metavar="G",
        envvar="SFVQA_GPUS_PER_WORKER",
        min=0.0,
        help="Give each worker G GPUs; 0.5 lets two share one (default: 1 where the cluster has any).",
        show_default=False,
        rich_help_panel=_CLUSTER,
    ),
]


def cluster_options(context: typer.Context) -> "ClusterOptions | None":
    """The cluster that the options of the command ask for, None for none. UsageError where they contradict."""
    given = context.params
    if not given["ray"] and given["ray_address"] is None:
        for name in ("workers", "gpus_per_worker"):
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise UsageError(f"--{name.replace('_', '-')} is for a Ray cluster.", "Add --ray.")
        return None
    from sfvqa.batch.cluster.connection import check_installed
    from sfvqa.batch.cluster.options import ClusterOptions

    check_installed()
    if given["ray_address"] == "":  # an unset variable, most likely
        raise UsageError("--ray-address is empty.", "Name HOST:PORT, or use --ray alone.")
    return ClusterOptions(given["ray_address"], given["workers"], given["gpus_per_worker"], given["device"])
