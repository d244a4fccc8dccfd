"""The ``nepa3d`` command: ``nepa3d NAME FLAGS`` is ``python -m <module of that name> FLAGS``."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from nepa3d import cli

COMMANDS = {
    "demo": ("nepa3d.demo", "the whole pipeline on real meshes"),
    "import-sweethome3d": ("nepa3d.data.import_sweethome3d", "furniture as a corpus of meshes"),
    "procedural": ("nepa3d.data.procedural", "a corpus of made-up meshes"),
    "virtual-scanner": ("nepa3d.data.virtual_scanner", "meshes to scans in ScanObjectNN's layout"),
    "preprocess-shapenet": ("nepa3d.data.preprocess_shapenet", "ShapeNet's meshes to caches"),
    "preprocess-modelnet40": ("nepa3d.data.preprocess_modelnet40", "ModelNet40's meshes to caches"),
    "preprocess-scanobjectnn": ("nepa3d.data.preprocess_scanobjectnn", "ScanObjectNN's scans to caches"),
    "progress": ("nepa3d.data.progress", "how far the shards of a preprocessing run are"),
    "verify": ("nepa3d.data.verify", "check a tree of caches"),
    "migrate": ("nepa3d.data.migrate_add_pt_dist_pc_pool", "bring older caches up to date"),
    "unpaired-split": ("nepa3d.data.shapenet_unpaired_split", "divide shapes among views"),
    "unpaired-cache": ("nepa3d.data.preprocess_shapenet_unpaired", "lay out such a division as caches"),
    "pretrain": ("nepa3d.train.pretrain", "pretrain a model"),
    "finetune": ("nepa3d.train.finetune_cls", "fine-tune a model to classify"),
    "m1-pretrains": ("nepa3d.train.m1_pretrains", "the three pretrainings of the M1 experiment"),
    "m1-table": ("nepa3d.train.m1_table", "its 75 fine-tunings, and their table"),
    "fewshot-table": ("nepa3d.analysis.fewshot_table", "the table of the fine-tunings that are done"),
    "pipeline-status": ("nepa3d.train.pipeline_status", "what of M1 is done and what runs"),
    "ucpr": ("nepa3d.analysis.retrieval_ucpr", "cross-view retrieval"),
    "cpac": ("nepa3d.analysis.completion_cpac_udf", "completion of the distance field"),
    "evaluate": ("nepa3d.analysis.evaluate", "all probes of several checkpoints, with their controls"),
    "surfaces": ("nepa3d.analysis.surfaces", "completions as meshes, scored"),
    "compare": ("nepa3d.analysis.compare", "two results, shape by shape"),
    "view": ("nepa3d.report.view", "one cached shape, as a table and a picture"),
    "tables": ("nepa3d.analysis.tables", "results as tables"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named first."""
    name, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: nepa3d NAME [FLAGS], nepa3d NAME --help\n")
        for known, (_, what) in COMMANDS.items():
            print(f"  {known:<25}{what}")
        return cli.EXIT_OK
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "nepa3d --help lists them"
        print(f"error: there is no command {name!r}, {hint}", file=sys.stderr)
        return cli.EXIT_USAGE
    status: int = importlib.import_module(COMMANDS[name][0]).main(flags)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
