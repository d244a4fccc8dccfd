"""The page of nepa3d explore: what a client may send, and the page in a browser."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("viser", reason="needs nepa3d[explore]")
pytest.importorskip("lancedb", reason="needs nepa3d[search]")

import viser
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from nepa3d import cli
from nepa3d.inference.explore import page
from nepa3d.inference.explore.explorer import Explorer
from nepa3d.inference.explore.guard import CHUNK, is_own_page
from nepa3d.inference.explore.stage import distance_to_fit, layout
from nepa3d.inference.explore.uploads import Reader
from tests.conftest import GOLDEN
from tests.inference.conftest import MOST_UPLOAD, gui_of, wait_for

CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (1.0, 1.0, 1.0),
    "fov": 1.0,
    "near": 0.1,
    "far": 100.0,
    "image_height": 600,
    "image_width": 800,
    "look_at": (0.0, 0.0, 0.0),
    "up_direction": (0.0, 0.0, 1.0),
}
BOX = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


class Client:
    """What a browser sends, and what it need not."""

    def __init__(self, server: Any, **headers: str) -> None:
        url = f"ws://localhost:{server.get_port()}"
        protocol: Any = f"viser-v{viser.__version__}"
        self.socket: ClientConnection = connect(
            url, subprotocols=[protocol], additional_headers=headers, max_size=None, open_timeout=120, proxy=None
        )

    def send(self, **fields: Any) -> None:
        self.socket.send(msgspec.msgpack.encode(fields))

    def upload(self, uuid: str, name: str, content: bytes, size: int | None = None) -> None:
        count = -(-len(content) // CHUNK)
        about = {"source_component_uuid": uuid, "transfer_uuid": f"t{name}"}
        kind = "FileTransferStartUpload"
        declared = len(content) if size is None else size
        self.send(type=kind, filename=name, mime_type="", part_count=count, size_bytes=declared, **about)
        for i in range(count):
            part = content[i * CHUNK : (i + 1) * CHUNK]
            self.send(type="FileTransferPart", part_index=i, content=part, **about)


@pytest.fixture
def client(server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client whose page is there. It is not asked for what a browser keeps, which it would not answer."""
    monkeypatch.setattr("viser._viser.LocalStorageHandle.get_item", lambda *_, **__: None)
    there = threading.Event()
    found = Client(server)
    drain = threading.Thread(target=_drain, args=(found.socket,), daemon=True)
    drain.start()
    found.send(**CAMERA)
    for _ in range(1200):
        if server.get_clients() and button_of(server) is not None:
            there.set()
            break
        threading.Event().wait(0.1)
    assert there.is_set()
    yield found
    found.socket.close()


def _drain(connection: ClientConnection) -> None:
    try:
        for _ in connection:
            pass
    except ConnectionClosed:
        return


def button_of(server: Any) -> Any:
    handles = list(gui_of(server)._gui_input_handle_from_uuid.values())
    found = [handle for handle in handles if isinstance(handle, viser.GuiUploadButtonHandle)]
    return found[0] if found and any(getattr(handle, "label", "") == "Dark" for handle in handles) else None


def notifications(server: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    client = next(iter(server.get_clients().values()))
    monkeypatch.setattr(client, "add_notification", lambda title, body, **_: told.append(body))
    return told


def test_a_taken_port_is_refused(explorer: Explorer, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen(1)
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=f"port: {port} is taken on localhost"):
            page.free_port("localhost", port)
        argv = [f"{explorer.index.path}", "--port", f"{port}", "--ckpt", f"{GOLDEN / 'nepa_qa.pt'}"]
        assert page.main(argv) == cli.EXIT_USAGE
    assert "is taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv", [["--port", "70000"], ["--max_upload_mb", "0"], ["--resolution", "7"], ["--neighbours", "10"]]
)
def test_wrong_flags_are_named(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        page.main(["x.lance", *argv])
    assert ended.value.code == cli.EXIT_USAGE
    assert argv[0].removeprefix("--") in capsys.readouterr().err


def test_only_this_machine_is_served(server: Any) -> None:
    with socket.socket() as probe:  # another address of this machine
        probe.settimeout(5)
        assert probe.connect_ex(("127.0.0.2", server.get_port())) != 0


def test_pages_of_other_sites_are_refused() -> None:
    local = ("localhost", "127.0.0.1")
    assert is_own_page("http://localhost:80", "localhost:80", local) and is_own_page(None, "127.0.0.1:80", local)
    assert not is_own_page("http://evil.example", "localhost:80", local)
    assert not is_own_page("http://localhost:81", "localhost:80", local)
    assert not is_own_page("http://evil.example:80", "evil.example:80", local)  # a name that was made to lead here
    assert is_own_page("http://there:80", "there:80", None) and not is_own_page("http://x", "there:80", None)
    assert not is_own_page(None, None, None)


def test_a_socket_of_another_site_is_closed(server: Any) -> None:
    stranger = Client(server, Origin="http://evil.example")
    with pytest.raises(ConnectionClosed):
        stranger.send(**CAMERA)
        while True:
            stranger.socket.recv(timeout=60)
    assert not server.get_clients()


def test_what_the_page_would_not_send_is_dropped(server: Any, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[Any] = []
    monkeypatch.setattr(server, "request_share_url", lambda *_: shared.append(1))
    gui = gui_of(server)
    handles = {getattr(handle, "label", ""): handle for handle in gui._gui_input_handle_from_uuid.values()}
    slider, dark = handles["Turn"], handles["Dark"]
    before = slider.value
    for updates in (
        {"value": 1e9},
        {"value": float("nan")},
        {"value": "9"},
        {"value": True},
        {"update_cb": []},
        {"removed": True, "value": 3},
        {},
    ):
        client.send(type="GuiUpdateMessage", uuid=slider._impl.uuid, updates=updates)
    client.send(type="GuiUpdateMessage", uuid=button_of(server)._impl.uuid, updates={"value": ["a.obj", b"x"]})
    client.send(type="GuiUpdateMessage", uuid=handles["Shape"]._impl.uuid, updates={"value": "../../etc/passwd"})
    client.send(type="ShareUrlRequest")
    client.send(
        type="ScenePointerMessage",
        event_type="click",
        ray_origin=[float("nan"), 0.0, 0.0],
        ray_direction=None,
        screen_pos=[],
        modifier=None,
    )
    client.send(type="GuiUpdateMessage", uuid=dark._impl.uuid, updates={"value": True})  # and this one is taken
    wait_for(lambda: dark.value)
    assert slider.value == before and slider._impl.update_cb and not shared
    assert handles["Shape"].value != "../../etc/passwd" and button_of(server).value.name == ""


def test_a_file_that_is_too_large_is_refused(server: Any, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    told, uuid = notifications(server, monkeypatch), button_of(server)._impl.uuid
    client.upload(uuid, "big.obj", b"v" * (3 << 20))
    wait_for(lambda: told)
    assert told == [f"big.obj has 3.0 MB, at most {MOST_UPLOAD:g} MB are taken (--max_upload_mb)"]
    assert not gui_of(server)._current_file_upload_states
    client.upload(uuid, "lies.obj", b"v" * (3 << 20), size=100)  # more parts than it declares bytes for
    client.upload(uuid, "none.obj", b"")
    wait_for(lambda: len(told) > 1)
    assert "is empty" in told[1] and not gui_of(server)._current_file_upload_states


HOSTILE = {
    "claims.ply": b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000\nproperty float x\nend_header\n",
    "garbage.glb": b"glTF\2\0\0\0" + bytes(range(256)),
    "code.npz": b"PK\3\4" + b"cos\nsystem\n(S'touch /tmp/owned'\ntR." * 9,
    "numbers.obj": b"v 1e999 nan inf\nf 1 99999999999 -5\n",
    "script.py": b"import os",
    "../../../etc/passwd": b"root",
}


def test_hostile_files_are_refused_and_the_page_goes_on(
    server: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, uuid = notifications(server, monkeypatch), button_of(server)._impl.uuid
    for number, (name, content) in enumerate(HOSTILE.items(), 1):
        client.upload(uuid, name, content)
        wait_for(lambda number=number: len(told) == number)
    assert all(text.isprintable() and len(text) <= 300 and "nepa3d-upload" not in text for text in told)
    client.upload(uuid, "sound.obj", BOX.encode())
    gui = gui_of(server)
    labels = lambda: [getattr(handle, "label", "") for handle in gui._gui_input_handle_from_uuid.values()]  # noqa: E731
    wait_for(lambda: any(label.startswith("1  ") for label in labels()))
    assert len(told) == len(HOSTILE)


def test_a_reader_that_dies_or_hangs_costs_only_its_file(made_shapes: Path, tmp_path: Path) -> None:
    with Reader(seconds=5) as reader:
        with pytest.raises(ValueError, match="died"):
            reader._run(os._exit, "x.obj", 7)
        with pytest.raises(ValueError, match="more than 5 seconds"):
            reader._run(time.sleep, "x.obj", 600)
    with Reader() as reader:
        assert len(reader.form(made_shapes / "box" / "b0.obj").faces) == 12


def test_what_the_explorer_finds(explorer: Explorer) -> None:
    chosen = explorer.choose(3)
    assert chosen.row == 3 and chosen.subject.name == explorer.ids[3]
    found = explorer.index.search(explorer.vectors[3], 4)
    assert [near.path for near in chosen.neighbours] == [near.path for near in found if near.path != explorer.paths[3]]
    content = Path(explorer.folder, explorer.paths[3]).read_bytes()
    again = explorer.upload(Path(explorer.paths[3]).name, content)
    assert again.row is None and again.neighbours[0].path == explorer.paths[3]
    assert again.neighbours[0].similarity == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="row must be"):
        explorer.choose(99)


@pytest.mark.parametrize("aspect", [2.0, 1.0, 0.45])
def test_nothing_on_the_stage_overlaps(aspect: float) -> None:
    places = layout(6, aspect)
    balls = [(places.true, 1.0), (places.predicted, 1.0), *((at, 0.42) for at in places.neighbours)]
    for number, (centre, radius) in enumerate(balls):
        assert abs(centre[0]) + radius <= places.width / 2 + 0.2
        assert abs(centre[2] - places.middle) + radius <= places.height / 2 + 0.2
        for other, other_radius in balls[:number]:
            assert np.linalg.norm(np.subtract(centre, other)) >= radius + other_radius - 0.15
    assert distance_to_fit(4, 2, 1.0, 0.5) > distance_to_fit(4, 2, 1.0, 2.0)
