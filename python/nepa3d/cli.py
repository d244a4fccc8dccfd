"""How every command starts: a dataclass becomes flags, errors become one line and an exit status.

Exit statuses: 0 done, 2 the request is wrong (flags or input), 3 done but some shapes failed, 4 files are damaged,
71 memory ran out, 74 reading or writing failed, 75 ended as a scheduler asked, resumable, 130 interrupted, 143 told to
end.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

Config = TypeVar("Config")

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTEGRITY = 4
EXIT_MEMORY = 71
EXIT_IO = 74
EXIT_RESUMABLE = 75
EXIT_INTERRUPTED = 130


class Interrupted(Exception):  # noqa: N818 (no error: the work is kept)
    """A command ended early because it was asked to, and can go on."""


def parse(config_type: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Parse ``argv`` (default: the process's) into ``config_type``; its docstrings are the help text."""
    import tyro  # here, so that worker processes importing a command's module do not load it

    return tyro.cli(
        config_type,
        args=argv,
        use_underscores=True,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )


def run(config_type: type[Config], command: Callable[[Config], int | None], argv: Sequence[str] | None = None) -> int:
    """Parse, call ``command`` and return the exit status; bad input and failed I/O end in one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything
    config = parse(config_type, argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that workers are stopped too
    try:
        return command(config) or EXIT_OK
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_IO
    except MemoryError as error:
        print(f"error: memory ran out: {error}" if str(error) else "error: memory ran out", file=sys.stderr)
        return EXIT_MEMORY
    except Interrupted as reason:
        print(reason, file=sys.stderr)
        return EXIT_RESUMABLE
    except KeyboardInterrupt:
        print("interrupted; finished files are kept, the same command goes on from them", file=sys.stderr)
        return EXIT_INTERRUPTED
