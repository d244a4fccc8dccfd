"""What of a client's messages reaches viser: those that the page sends, with values that its widgets can have.

viser takes messages as they come: any property of a widget, files of any size, a request to share the page on the
internet. So every message is checked before viser sees it, and one that the page would not send is dropped. This uses
names of viser that begin with an underscore; ``guard`` raises where they are not those of viser 1.1.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import msgspec
import viser
from viser import _gui_handles as handles
from viser import _messages as messages
from viser.infra import ClientId, WebsockClientConnection

CHUNK = 512 * 1024  # bytes of a file in one message, as viser's page sends them
LONGEST_TEXT = 1000  # letters of a string in any message
LOCAL = ("localhost", "127.0.0.1", "::1")
TAKEN = (  # all that the page sends
    messages.ViewerCameraMessage,
    messages.ScenePointerMessage,
    messages.GuiUpdateMessage,
    messages.CommandTriggerMessage,
    messages.FileTransferStartUpload,
    messages.FileTransferPart,
    messages.LocalStorageGetItemResponseMessage,
)
Refusal = Callable[[int, str, int], None]  # of a file: client, name, bytes


class Guard:
    """Checks the messages of all clients of a server. ``Guard(server, ...)`` is on its watch until the server stops."""

    def __init__(self, server: viser.ViserServer, host: str, most_bytes: int, refuse: Refusal) -> None:
        """``refuse`` is called with what is known of a file of more than ``most_bytes``. Clients are those whose page
        came from ``host``; while that is this machine, by one of its local names, so that no page of another site can
        speak for the reader."""
        self._server, self._most_bytes, self._refuse = server, most_bytes, refuse
        self._hosts = LOCAL if host in LOCAL else None
        self._strangers: set[int] = set()
        self._websockets = server._websock_server
        self._watch(self._websockets, self._of_server)
        self._websockets.on_client_connect(self._meet)
        self._websockets.disconnect_all_clients()  # that came before; they come again by themselves

    def _watch(self, handler: Any, gui: Callable[[int], viser.GuiApi | None]) -> None:
        passed = handler._handle_incoming_message

        async def guarded(client_id: ClientId, message: messages.Message) -> None:
            if client_id not in self._strangers and self._is_sound(client_id, message, gui(client_id)):
                await passed(client_id, message)

        handler._handle_incoming_message = guarded

    def _of_server(self, client_id: int) -> viser.GuiApi | None:
        return self._server.gui

    async def _meet(self, connection: WebsockClientConnection) -> None:
        def gui(client_id: int) -> viser.GuiApi | None:
            client = self._server._connected_clients.get(client_id)
            return None if client is None else client.gui

        self._watch(connection, gui)
        socket = self._websockets._live_connections[connection.client_id]
        headers = socket.request.headers if socket.request else {}
        if not is_own_page(headers.get("Origin"), headers.get("Host"), self._hosts):
            self._strangers.add(connection.client_id)
            await socket.close(1008, "not from this page")

    def _is_sound(self, client_id: int, message: messages.Message, gui: viser.GuiApi | None) -> bool:
        """Whether viser may see it; ``gui`` has the widgets that it may be about."""
        if type(message) not in TAKEN or not well_formed(message):
            return False
        if isinstance(message, messages.GuiUpdateMessage):
            handle = gui and gui._gui_input_handle_from_uuid.get(message.uuid)
            return handle is not None and is_value(handle, message.updates)
        if isinstance(message, messages.FileTransferStartUpload):
            return gui is not None and self._may_upload(client_id, message, gui)
        if isinstance(message, messages.FileTransferPart):
            return len(message.content) <= CHUNK
        return True

    def _may_upload(self, client_id: int, message: messages.FileTransferStartUpload, gui: viser.GuiApi) -> bool:
        handle = gui._gui_input_handle_from_uuid.get(message.source_component_uuid)
        if not isinstance(handle, handles.GuiUploadButtonHandle):
            return False
        if message.size_bytes > self._most_bytes:
            self._finish(message, gui)
            self._refuse(client_id, message.filename, message.size_bytes)
            return False
        in_flight = len(gui._current_file_upload_states)
        return message.size_bytes >= 0 and message.part_count == math.ceil(message.size_bytes / CHUNK) and in_flight < 1

    def _finish(self, message: messages.FileTransferStartUpload, gui: viser.GuiApi) -> None:
        """Have the page forget an upload, whose parts are dropped as they come."""
        done = {"transferred_bytes": message.size_bytes, "total_bytes": message.size_bytes}
        ack = messages.FileTransferPartAck(message.source_component_uuid, message.transfer_uuid, **done)
        gui._websock_interface.queue_message(ack)
        gui._websock_interface.queue_message(messages.RemoveNotificationMessage(f"upload-{message.transfer_uuid}"))


def is_own_page(origin: str | None, host: str | None, hosts: tuple[str, ...] | None) -> bool:
    """Whether a WebSocket of these headers is of a page of this server: ``origin`` (None: not of a browser) must be
    that of ``host``, whose name must be one of ``hosts`` if they are given."""
    if not host:
        return False
    if hosts is not None and urlsplit(f"//{host}").hostname not in hosts:
        return False
    return origin is None or urlsplit(origin).netloc == host


def well_formed(message: messages.Message) -> bool:
    """Whether the fields of a message have the types that viser declares, numbers are finite and texts short."""
    hints = get_type_hints(type(message))
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if field.name in ("content", "updates"):
            if not isinstance(value, bytes if field.name == "content" else dict):
                return False
            continue
        try:
            msgspec.convert(value, hints[field.name])
        except (msgspec.ValidationError, TypeError):
            return False
        if not _plain(value):
            return False
    return True


def is_value(handle: Any, updates: dict[str, Any]) -> bool:
    """Whether ``updates`` set a widget to a value that it can have, and nothing else of it."""
    if list(updates) != ["value"]:
        return False
    value = updates["value"]
    if isinstance(handle, handles.GuiSliderHandle):
        return _is_number(value) and handle.min <= value <= handle.max
    if isinstance(handle, (handles.GuiDropdownHandle, handles.GuiButtonGroupHandle)):
        return isinstance(value, str) and value in handle.options
    if isinstance(handle, (handles.GuiCheckboxHandle, handles.GuiButtonHandle)):
        return isinstance(value, bool)
    return False  # a file comes by its own messages


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) <= 16 and all(map(_plain, value))
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return value is None or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
