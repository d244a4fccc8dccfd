"""Classes of a folder's meshes from a CSV file with the columns path and class, whatever folders the meshes lie in."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from nepa3d.corpora.folder import folder
from nepa3d.corpora.mesh_files import CorpusMesh, by_key

COLUMNS = ("path", "class")


def meshes_of_class_file(root: Path, file: Path) -> tuple[list[CorpusMesh], list[Path]]:
    """The meshes below ``root`` that ``file`` lists, and those that it does not list, which are left out.

    The key of a mesh is its class, then its whole path below the root without the ending, the folders joined by "--".
    ``ValueError`` naming the line where the file is not such a list, or lists what is no mesh below ``root``.
    """
    classes = read_classes(file)
    found = {mesh.path.relative_to(root).as_posix(): mesh.path for mesh in folder(root)}
    missing = [path for path in classes if path not in found]
    if missing:
        raise ValueError(f"classes: {file} lists {missing[0]}, which is no mesh below {root} ({len(missing)} are not)")
    keyed = by_key((_key(path, name), found[path]) for path, name in sorted(classes.items()))
    left_out = [path for name, path in found.items() if name not in classes]
    return [CorpusMesh(key, path) for key, path in keyed.items()], left_out


def read_classes(file: Path) -> dict[str, str]:
    """The class of each path, as the file spells it with "/" between folders. Columns beside the two are left alone."""
    if not file.is_file():
        raise ValueError(f"classes: expected a CSV file, there is none at {str(file)!r}")
    classes: dict[str, str] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened, strict=True)
            if not {*COLUMNS} <= {*(rows.fieldnames or ())}:
                raise ValueError(f"classes: {file}: expected the columns path and class, got {rows.fieldnames}")
            for row in rows:
                path, name = (f"{row[column] or ''}".strip() for column in COLUMNS)
                path = PurePosixPath(path.replace("\\", "/")).as_posix()
                where = f"classes: {file}:{rows.line_num}"
                if not name or name.startswith(".") or "/" in name or "\\" in name:
                    raise ValueError(f"{where}: expected a class that can name a folder, got {name!r}")
                if classes.setdefault(path, name) != name:
                    raise ValueError(f"{where}: {path} is of class {name}, but {classes[path]} before")
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"classes: {file}: not readable as CSV: {error}") from error
    return classes


def _key(path: str, name: str) -> str:
    return f"{name}/{'--'.join(PurePosixPath(path).with_suffix('').parts)}"
