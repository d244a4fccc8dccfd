"""How every command starts: a dataclass becomes flags, errors become one line and an exit status.

Exit statuses: 0 done, 2 the request is wrong (flags or input), 3 done but some shapes failed, 4 files are damaged,
71 memory ran out, 74 reading or writing failed, 75 ended as a scheduler asked, resumable, 130 interrupted, 141 nobody
read on, 143 told to end.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nepa3d.cli import commands, configuration, flags
from nepa3d.execution import files

Config = TypeVar("Config")

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTEGRITY = 4
EXIT_MEMORY = 71
EXIT_IO = 74
EXIT_RESUMABLE = 75
EXIT_INTERRUPTED = 130
EXIT_PIPE = 128 + signal.SIGPIPE
EXIT_TERMINATED = 128 + signal.SIGTERM

# flags that name what is written; what "out" names is a file or a folder
OUTPUT_FILES = ("out_json", "out_md", "out_png", "out_html", "list_file", "picture")
OUTPUT_FOLDERS = ("out_root", "save_dir")

CONFIG_HELP = "--config FILE reads the flags that a run saved beside its output; -H explains each flag."


class Interrupted(Exception):  # noqa: N818 (no error: the work is kept)
    """A command ended early because it was asked to, and can go on."""


class Unchanged(Exception):  # noqa: N818 (no error: nothing was left to do)
    """What a command was to make was there already: the flags saved beside it stay those that it was made with."""


def settle_encodings(argv: Sequence[str] | None) -> None:
    """See that names of files are UTF-8 whatever the locale, and that any can be printed.

    In every file that is written here names are UTF-8. A process whose locale has it read them otherwise, started and
    not called (``argv`` is None), begins anew in Python's UTF-8 mode, which is the usual one from Python 3.15 on.
    """
    if argv is None and sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # also for the processes started from here
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be anything


def parse(config_type: type[Config], argv: Sequence[str] | None = None) -> Config:
    """Parse ``argv`` (default: the process's) into ``config_type``; its docstrings are the help text.

    ``--config FILE`` takes the flags of a saved configuration, and those beside it take precedence.
    """
    module = _module(config_type)
    saved, rest = _take_config(sys.argv[1:] if argv is None else argv)
    given = configuration.load(files.find_config(saved), module, config_type) if saved else {}
    short = {"-h", "--help"} & {*rest}  # fits a screen without groups; -H shows them
    shown: type[Config] = flags.ungrouped(config_type) if short else config_type
    import tyro  # here, so that worker processes importing a command's module do not load it

    return tyro.cli(
        shown,
        prog=commands.spelled(module),
        description=f"{_purpose(config_type, module)}\n\n{CONFIG_HELP}",
        args=rest,
        default=_over_defaults(shown, given) if saved else tyro.MISSING_NONPROP,
        compact_help=True,
        use_underscores=True,
        config=markers(),
    )


def _purpose(config_type: type[Any], module: str) -> str:
    """What a command does: its docstring, or one line where Python was told to leave docstrings out."""
    if sys.flags.optimize < 2:
        return inspect.getdoc(config_type) or ""
    return f"{commands.purpose(module)} (PYTHONOPTIMIZE=2 leaves out the description and the example)"


def markers() -> tuple[Any, ...]:
    """How flags are made of a dataclass, for tyro."""
    import tyro

    return tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes


def run(
    config_type: type[Config],
    command: Callable[[Config], int | None],
    argv: Sequence[str] | None = None,
    *,
    output: str | None = None,
) -> int:
    """Parse, call ``command`` and return the exit status; bad input and failed I/O end in one line on stderr.

    The flag ``output`` names the file or folder the command writes; its configuration is saved beside that. Files that
    cannot be written are named before any work.
    """
    settle_encodings(argv)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # so that workers are stopped too
    try:
        config = parse(config_type, argv)
        _require_writable(config)
        try:
            status = command(config) or EXIT_OK
        except (Interrupted, KeyboardInterrupt, SystemExit):  # what was written so far is as the flags say
            _save(config, output)
            raise
        _save(config, output)
        return status
    except Unchanged:
        return EXIT_OK
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # of the table, by whom it was shown to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except OSError as error:
        print(f"error: {_told(error)}", file=sys.stderr)
        return EXIT_IO
    except MemoryError as error:
        print(f"error: memory ran out: {error}" if str(error) else "error: memory ran out", file=sys.stderr)
        return EXIT_MEMORY
    except Interrupted as reason:
        print(reason, file=sys.stderr)
        return EXIT_RESUMABLE
    except KeyboardInterrupt:
        print("interrupted; finished files are kept, run the same command to resume", file=sys.stderr)
        return EXIT_INTERRUPTED


def _told(error: OSError) -> str:
    """The file and the fault, without the number that the system has for it."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else f"{error}"


def _require_writable(config: Any) -> None:
    """``ValueError`` or ``OSError`` if a flag names an output that cannot be written, or that is another flag's file,
    which would be lost."""
    values = flags.values(config)
    for flag in OUTPUT_FOLDERS:
        path = values.get(flag)
        if path and Path(path).exists() and not Path(path).is_dir():
            raise ValueError(f"{flag}: expected a folder to write to, {path} is a file")
    named = [
        (flag, Path(part))
        for flag, value in values.items()
        for part in (value if isinstance(value, (tuple, list)) else (value,))
        if isinstance(part, (str, Path)) and f"{part}"
    ]
    for flag in (*OUTPUT_FILES, "out"):
        path = values.get(flag)
        if not path:
            continue
        if flag in OUTPUT_FILES:
            files.require_writable(path, flag)
        for other, given in named:
            if other != flag and Path(path).resolve() == given.resolve():
                raise ValueError(f"{flag} must be another file than that of {other}, got {path} for both")


def _save(config: Any, output: str | None) -> None:
    """Keep the flags beside what the command wrote, if it did."""
    written = flags.values(config)[output] if output else None
    if written and Path(written).exists():
        module = _module(type(config))
        configuration.save(configuration.beside(Path(written), module), module, config)


def _module(config_type: type[Any]) -> str:
    """The name of a command's module, also when it is the one started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if config_type.__module__ == "__main__" and spec else config_type.__module__


def _take_config(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file of ``--config FILE`` or ``--config=FILE``, and the flags beside it."""
    flags = [part for flag in argv for part in (flag.split("=", 1) if flag.startswith("--config=") else [flag])]
    if "--config" not in flags:
        return None, flags
    at = flags.index("--config")
    if at + 1 == len(flags):
        raise ValueError("--config must be followed by a file, got nothing")
    return Path(flags[at + 1]), flags[:at] + flags[at + 2 :]


def _over_defaults(config_type: type[Config], given: dict[str, Any]) -> Config:
    """A configuration of the flags ``given`` and of defaults; what neither gives is left to be asked for."""
    import tyro

    config = object.__new__(config_type)  # unchecked until it is whole
    defaults = {name: flag.default for name, flag in flags.flags(config_type).items()}
    for name, nested in flags.fields_of(config_type).items():
        if nested is None:
            default = tyro.MISSING if defaults[name] is dataclasses.MISSING else defaults[name]
        object.__setattr__(config, name, _over_defaults(nested, given) if nested else given.get(name, default))
    return config
