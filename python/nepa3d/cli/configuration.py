"""What a run was asked to do: saved beside what it wrote, and read again by ``--config``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import msgspec
import yaml

from nepa3d.cli import flags
from nepa3d.execution import files, provenance
from nepa3d.execution.yaml_file import read_yaml

SUFFIX = ".config.yaml"


def beside(output: Path, module: str) -> Path:
    """Where the configuration of what is in the folder, or the file, ``output`` is kept: of a.json in a.config.yaml, of
    another file, such as a.npz, in a.npz.config.yaml, as there may be several of one name."""
    if output.is_dir():
        return output / f"{module.rpartition('.')[2]}{SUFFIX}"
    return output.with_suffix(SUFFIX) if output.suffix == ".json" else output.with_name(f"{output.name}{SUFFIX}")


def save(path: Path, module: str, config: Any) -> None:
    """Write all flags of the dataclass ``config`` of the command ``module``, and what ran it, as YAML."""
    content = {"command": module, "run": provenance.describe(), "flags": flags.spellings(config)}
    again = f"# python -m {module} --config THIS_FILE does it again; flags after it take precedence\n"
    files.write_text(path, again + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def load(path: Path, module: str, config_type: type[Any]) -> dict[str, Any]:
    """The flags a file gives, as ``config_type`` has them; ValueError names the file and what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"config: there is no file {path}")
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("flags"), dict):
        raise ValueError(f"{path} has no flags, expected a file that a command left beside its output")
    if content.get("command", module) != module:
        raise ValueError(f"{path} is of the command {content['command']}, expected {module}")
    known = flags.flags(config_type)
    given = {}
    for name, value in content["flags"].items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            raise ValueError(f"{path}: there is no flag {name!r}" + (f", did you mean {near[0]}?" if near else ""))
        flag = known[name]
        try:
            given[name] = _typed(value, flag.type) if flag.spelled is flags.AS_IT_IS else _spelled_value(value, flag)
        except TypeError:
            raise ValueError(f"{path}: {name} must be {_spelled(flag)}, got {value!r}") from None
    return given


def _typed(value: Any, hint: Any) -> Any:
    """A value of YAML as ``hint`` has it; TypeError if it has no such values."""
    try:
        return msgspec.convert(value, hint, strict=True, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise TypeError from error


def _path(hint: Any, value: Any) -> Path:
    if hint is not Path or not isinstance(value, str):
        raise TypeError
    return Path(value)


def _spelled_value(value: Any, flag: flags.Flag) -> Any:
    """The value of a flag that a file spells as a number; TypeError if it is none."""
    if type(value) is not int or flag.spelling(flag.spelled.value(value)) != value:
        raise TypeError
    return flag.spelled.value(value)


def _spelled(flag: flags.Flag) -> str:
    """The type of a flag as an error names it."""
    if flag.spelled is not flags.AS_IT_IS:
        return "a number that the flag allows"
    hint = flag.type
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "").replace("pathlib.", "")
