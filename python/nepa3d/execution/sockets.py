"""Where sockets lie: the system allows their paths about 100 bytes, which a job's TMPDIR alone may have."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile

LONGEST = 103  # bytes of a socket's path; 107 on Linux
USUAL = ("/tmp", "/var/tmp", "/dev/shm")  # what is short


def socket_folder(room: int) -> str:
    """The folder of temporary files, or a usual one where paths ``room`` bytes longer than its are no sockets' paths.

    ``ValueError`` if there is none.
    """
    folders = [tempfile.gettempdir(), *USUAL]
    for folder in folders:
        if len(os.fsencode(folder)) + room <= LONGEST and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ValueError(
        f"TMPDIR: {folders[0]} is too long for the paths of sockets, and nobody may write to {', '.join(USUAL)}: "
        f"set it to a folder of at most {LONGEST - room} bytes"
    )


def shorten_socket_paths() -> None:
    """Have multiprocessing keep this process's sockets, and nothing else, in a ``socket_folder``."""
    folder, usual = socket_folder(room=len("/pymp-12345678/listener-12345678")), tempfile.gettempdir()
    if folder != usual:
        tempfile.tempdir = folder
        try:
            multiprocessing.util.get_temp_dir()  # made now, and kept until the process ends
        finally:
            tempfile.tempdir = usual
