"""The page in the browser: one server, a session a client."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from nepa3d import cli
from nepa3d.inference.explore.explorer import Explorer, Limits
from nepa3d.inference.explore.shape_map import Projection
from nepa3d.inference.explore.uploads import Reader
from nepa3d.inference.index import ShapeIndex
from nepa3d.models.encoder import load

if TYPE_CHECKING:
    import viser


@dataclass(frozen=True)
class Config:
    """Look at the shapes of an index in the browser: a map, neighbours, completions, distance fields, attention.

    The page is served until you press Ctrl+C, to this machine only unless --host says otherwise. On a machine reached
    by SSH, forward the port: ssh -L 8080:localhost:8080 MACHINE.

    Example: nepa3d explore shapes.lance
    """

    index: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="INDEX")]
    """The index, as nepa3d index makes it."""
    ckpt: str = ""
    """The model of the index; left out: from where it was when the index was made."""
    projection: Projection = "pca"
    """How embeddings become places of the map: principal components, or t-SNE, which takes seconds for each 1000."""
    up: Literal["y", "z"] = "y"
    """Axis that points up of what is drawn; not needed for an index made with --up, whose shapes have been turned."""
    port: int = 8080
    """Port of the page; 0: any that is free."""
    host: str = "localhost"
    """Address the page is served at. Anyone who reaches another address may look at the shapes and send files."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, got {self.port}")


def free_port(host: str, port: int) -> int:
    """``port``, or one that is free for 0, on every address that ``host`` names. ``ValueError`` naming the flag if it
    is taken, or ``host`` is no address of this machine."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise ValueError(f"host: {host!r} is no address: {error.strerror}") from error
    found = port
    for family, kind, protocol, _, (name, _, *rest) in addresses:
        try:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind((name, found, *rest))
                tried.listen(1)
                found = int(tried.getsockname()[1])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ValueError(_taken(host, found)) from error
            raise ValueError(f"host, port: {host}:{found} cannot be served: {error.strerror}") from error
    return found


def _taken(host: str, port: int) -> str:
    return f"port: {port} is taken on {host}, choose another, or 0 for any that is free"


@contextlib.contextmanager
def served(explorer: Explorer, host: str, port: int, up: Literal["y", "z"] = "y") -> Iterator[viser.ViserServer]:
    """The page, served in threads of its own while the block runs. ``ValueError`` if the port is taken or viser is not
    installed."""
    try:
        import viser
    except ImportError as error:
        raise ValueError("the page needs viser: pip install 'nepa3d[explore]'") from error
    from nepa3d.inference.explore.guard import Guard
    from nepa3d.inference.explore.session import Session

    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)  # of what clients send that is no WebSocket
    wanted = free_port(host, port)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a frame with the address
        server = viser.ViserServer(host, wanted, verbose=False)
    sessions: dict[int, Session] = {}

    def refuse(client_id: int, filename: str, size: int) -> None:
        if client_id in sessions:
            sessions[client_id].refuse_upload(filename, size)

    @server.on_client_connect
    def _(client: viser.ClientHandle) -> None:
        sessions[client.client_id] = Session(client, explorer, up)

    @server.on_client_disconnect
    def _(client: viser.ClientHandle) -> None:
        if client.client_id in sessions:
            sessions.pop(client.client_id).close()

    try:
        Guard(server, host, explorer.limits.most_bytes, refuse)
        if server.get_port() != wanted:  # taken since, and viser took the next one
            raise ValueError(_taken(host, wanted))
        yield server
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            server.stop()
        for session in sessions.values():
            session.close()


def command(config: Config) -> None:
    """Serve the page until interrupted."""
    port = free_port(config.host, config.port)  # before what takes long
    index = ShapeIndex.open(config.index, load(config.ckpt) if config.ckpt else None)
    with Reader(up=index.settings.up) as reader:
        explorer = Explorer(index, reader, config.limits, config.projection)
        explorer.encoder.distance_head()  # fitted now where the model has none
        with served(explorer, config.host, port, config.up) as server:
            print(f"{len(explorer.ids)} shapes: http://{config.host}:{server.get_port()} (Ctrl+C ends)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait()


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
