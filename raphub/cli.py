"""What can be done from a shell?

Everything slow, Ray first of all, is imported by the command that needs it: `raphub --help` answers
at once. Data goes to stdout, the rest to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Never

import typer

import raphub
from raphub.demo.kills import DEFAULT_KILLS, Kill
from raphub.errors import HubNotFound, RaphubError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raphub.hub import Hub
    from raphub.render import Table

CONNECT_TIMEOUT_S = 10.0
"""Ray itself tries for two minutes to connect to an address where nobody is."""

DIAL_TIMEOUT_S = 5.0
INTERRUPTED = 130

app = typer.Typer(
    name="raphub",
    help="Warm replicated Ray actors: a copy takes over where the last one stopped.",
    epilog="Begin with `raphub demo`: it needs no Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="The Ray cluster: its address, or `auto` for RAY_ADDRESS or the one on this machine.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]


def main() -> None:
    """The command `raphub`. Exits with 0 (done), 1 (failed), 2 (usage) or 130 (interrupted)."""
    app(prog_name="raphub")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"raphub {raphub.__version__}")
        raise typer.Exit


@app.callback()
def _begin(
    context: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    traceback_wanted: Annotated[
        bool, typer.Option("--traceback", help="After an error, also show where it was raised.")
    ] = False,
) -> None:
    del version
    context.obj = traceback_wanted


@app.command()
def demo(
    context: typer.Context,
    *,
    nodes: Annotated[
        int, typer.Option(min=2, max=8, help="How many Ray nodes, besides a head.")
    ] = 3,
    kill: Annotated[
        list[Kill] | None,
        typer.Option(
            metavar="|".join(Kill),
            help="What to do to the active copy: kill its process, kill its node, or stop its "
            "process so that it hangs. May be repeated; without it, worker and then node.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Kill what serves, while it is written to and beside plain Ray, and measure.

    At the end the state is compared with what was acknowledged: what was lost, what applied twice?
    Starts a Ray cluster of its own on this machine, takes about a minute and 2 GB of memory, and
    leaves nothing behind. Ctrl-C ends it at any time.
    """
    with _errors_told(context):
        _let_ray_print_at_once()
        from rich.console import Console  # noqa: PLC0415 - see the module's docstring

        from raphub.demo import figures, run, show  # noqa: PLC0415 - as above

        # Ray prints what it notices of the deaths to stdout, and the demo tells of them itself.
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            show.Show(Console(stderr=True)) as seen,
        ):
            measured = run.run(nodes, kill or DEFAULT_KILLS, seen)
        if as_json:
            _print_json([one.as_json() for one in measured])
        else:
            typer.echo("", err=True)
            _print_tables(figures.tables(measured))
        if any(one.raphub.gap_s is None or not one.raphub.writes.is_right for one in measured):
            raise typer.Exit(1)


@app.command()
def status(
    context: typer.Context,
    *,
    hub: Annotated[
        str | None, typer.Argument(metavar="HUB", help="The hub's id; without it, all hubs.")
    ] = None,
    address: Address = "auto",
    as_json: AsJson = False,
) -> None:
    """Show a hub: its children, who serves and where, and its nodes."""
    with _errors_told(context):
        with _connected(address):
            from raphub.hub import hubs  # noqa: PLC0415 - see the module's docstring

            ids = hubs() if hub is None else [hub]
            found = [_find_hub(hub_id).status() for hub_id in ids]
        if as_json:
            dumped = [one.model_dump(mode="json") for one in found]
            _print_json(dumped if hub is None else dumped[0])
        elif found:
            _print_tables([table for one in found for table in one.tables()])
        else:
            typer.echo("No hub runs in this cluster: start one with raphub.Hub.start(...).")


@app.command()
def stop(
    context: typer.Context,
    hub: Annotated[str, typer.Argument(metavar="HUB", help="The hub's id.")],
    *,
    address: Address = "auto",
) -> None:
    """Stop a hub: every child of it, every copy, and the hub itself."""
    with _errors_told(context), _connected(address):
        from raphub.snapshot import counted  # noqa: PLC0415 - see the module's docstring

        found = _find_hub(hub)
        children = counted(len(found.children()), "child", "children")
        found.stop()
        typer.echo(f"The hub {hub!r} is stopped, and with it {children}.", err=True)


# --- Connecting -------------------------------------------------------------------------------


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """Be a driver of the cluster. Raises `RaphubError`, within seconds, if that cannot be."""
    _check_address(address)
    _let_ray_print_at_once()
    import logging  # noqa: PLC0415 - see the module's docstring

    import ray  # noqa: PLC0415 - as above

    connected = threading.Event()
    threading.Thread(target=_give_up_unless, args=(connected, address), daemon=True).start()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (Exception, SystemExit) as error:
        # Ray raises what it likes here, and exits where its own checks fail.
        raise _unreachable(address, str(error)) from error
    finally:
        connected.set()
    try:
        # Ray prints its own news to stdout, which is for data alone.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        ray.shutdown()


def _let_ray_print_at_once() -> None:
    """Ray may keep lines back until the process ends, when stdout is the user's again.

    It reads this once, when it is imported.
    """
    os.environ["RAY_DEDUP_LOGS"] = "0"


def _check_address(address: str) -> None:
    """Find out quickly what Ray finds out slowly: that nobody listens there."""
    target = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    if target == "auto":
        return
    host, colon, port = target.removeprefix("ray://").rpartition(":")
    if not (host and colon and port.isdigit()):
        raise typer.BadParameter(
            f"{target!r} is not HOST:PORT, ray://HOST:PORT or `auto`.", param_hint="--address"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), DIAL_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(target, str(error)) from error


def _give_up_unless(connected: threading.Event, address: str) -> None:
    """End this process when Ray hangs: it cannot be asked to stop trying."""
    if not connected.wait(CONNECT_TIMEOUT_S):
        _tell(_unreachable(address, f"no Ray cluster answered in {CONNECT_TIMEOUT_S:.0f} s"))
        os._exit(1)


def _unreachable(address: str, reason: str) -> RaphubError:
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    if address == "auto":
        return RaphubError(
            "no Ray cluster was found on this machine.",
            hint="Give --address HOST:PORT, or start one with `ray start --head`; "
            "`raphub demo` brings its own.",
        )
    return RaphubError(
        f"the Ray cluster at {address} cannot be reached: {lines[0] if lines else 'no reason told'}",
        hint="Check the address; `ray status` shows it on a node of the cluster.",
    )


def _find_hub(hub_id: str) -> Hub:
    from raphub.hub import Hub, hubs  # noqa: PLC0415 - see the module's docstring

    try:
        return Hub.connect(hub_id)
    except HubNotFound as error:
        others = ", ".join(hubs())
        hint = f"These run: {others}." if others else "No hub runs in this cluster."
        raise HubNotFound(error.message, hint=hint, hub_id=hub_id) from error


# --- Telling ----------------------------------------------------------------------------------


def _print_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    typer.echo(json.dumps(value, indent=2))


def _print_tables(tables: Sequence[Table]) -> None:
    """In colour on a terminal; plain text of at most 80 columns otherwise."""
    from raphub import render  # noqa: PLC0415 - see the module's docstring

    if not sys.stdout.isatty():
        typer.echo(render.text(tables))
        return
    from rich.console import Console  # noqa: PLC0415 - as above

    console = Console()
    for number, table in enumerate(tables):
        if number:
            console.print()
        console.print(render.rich_group(table))


@contextlib.contextmanager
def _errors_told(context: typer.Context) -> Iterator[None]:
    """Errors become a sentence and a hint on stderr and the exit code 1."""
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has had enough of it; Python would complain again at its end.
        sys.stdout = None
        raise typer.Exit(1) from None
    except Exception as error:  # noqa: BLE001 - nobody is to meet a traceback who did not ask for it
        _fail(error, traceback_wanted=bool(context.obj))


def _fail(error: Exception, *, traceback_wanted: bool) -> Never:
    if traceback_wanted:
        traceback.print_exception(error)
    if isinstance(error, RaphubError):
        _tell(error)
    else:
        told = str(error).strip().splitlines() or [type(error).__name__]
        _tell(
            RaphubError(
                f"an unexpected {type(error).__name__}: {told[0]}",
                hint="`raphub --traceback ...` shows where it was raised.",
            )
        )
    raise typer.Exit(1)


def _tell(error: RaphubError) -> None:
    typer.echo(f"Error: {error.message}", err=True)
    if error.hint:
        typer.echo(f"Hint: {error.hint}", err=True)
