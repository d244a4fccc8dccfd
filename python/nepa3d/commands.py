"""The names of the commands: ``nepa3d NAME`` is ``python -m <module of that name>``."""

from __future__ import annotations

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
    "probe-cls": ("nepa3d.analysis.classification_probes", "k-nearest-neighbour and linear probes of frozen features"),
    "evaluate": ("nepa3d.analysis.evaluate", "all probes of several checkpoints, with their controls"),
    "surfaces": ("nepa3d.analysis.surfaces", "completions as meshes, scored"),
    "compare": ("nepa3d.analysis.compare", "two results, shape by shape"),
    "view": ("nepa3d.report.view", "one cached shape, as a table and a picture"),
    "report": ("nepa3d.report.page", "one page of an experiment, with pictures and 3D views"),
    "tables": ("nepa3d.analysis.tables", "results as tables"),
    "completion": ("nepa3d.completion", "what a shell needs to complete these names and their flags"),
}


def purpose(module: str) -> str:
    """What ``module`` does, in one line."""
    return next((what for known, what in COMMANDS.values() if known == module), module)


def spelled(module: str) -> str:
    """How ``module`` is started, as help shows it."""
    names = [name for name, (known, _) in COMMANDS.items() if known == module]
    return f"nepa3d {names[0]}" if names else f"python -m {module}"
