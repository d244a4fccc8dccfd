"""The names of the commands: ``nepa3d NAME`` is ``python -m <module of that name>``."""

from __future__ import annotations

COMMANDS = {
    "demo": ("nepa3d.experiments.demo", "run the whole pipeline on real meshes"),
    "import-sweethome3d": ("nepa3d.data.import_sweethome3d", "import Sweet Home 3D's furniture as a mesh corpus"),
    "import-kicad": ("nepa3d.data.import_kicad", "import KiCad's 3D packages as a mesh corpus with a split"),
    "procedural": ("nepa3d.data.procedural", "generate a procedural mesh corpus"),
    "virtual-scanner": ("nepa3d.data.virtual_scanner", "scan meshes with a virtual camera, in ScanObjectNN's layout"),
    "preprocess-meshes": ("nepa3d.data.preprocess_meshes", "preprocess any folder of meshes into a shape cache"),
    "preprocess-folder": ("nepa3d.data.preprocess_meshes", "preprocess any folder of meshes into a shape cache"),
    "preprocess-shapenet": ("nepa3d.data.preprocess_shapenet", "preprocess ShapeNet into a shape cache"),
    "preprocess-modelnet40": ("nepa3d.data.preprocess_modelnet40", "preprocess ModelNet40 into a shape cache"),
    "preprocess-scanobjectnn": ("nepa3d.data.preprocess_scanobjectnn", "preprocess ScanObjectNN into a shape cache"),
    "progress": ("nepa3d.data.progress", "show the progress of a sharded preprocessing run"),
    "verify": ("nepa3d.data.verify", "validate a shape cache and list damaged files"),
    "pack": ("nepa3d.data.pack", "pack a shape cache into tar shards for network file systems"),
    "near-duplicates": ("nepa3d.data.near_duplicates", "list shapes of a split that another split holds, too"),
    "migrate": ("nepa3d.data.migrate_add_pt_dist_pc_pool", "update an older shape cache in place"),
    "unpaired-split": ("nepa3d.data.shapenet_unpaired_split", "assign each training shape to one view"),
    "unpaired-cache": ("nepa3d.data.preprocess_shapenet_unpaired", "build the unpaired cache from such an assignment"),
    "pretrain": ("nepa3d.train.pretrain", "pretrain a model"),
    "finetune": ("nepa3d.train.finetune_cls", "fine-tune a model for classification"),
    "m1-pretrains": ("nepa3d.experiments.m1_pretrains", "run the three pretrainings of the M1 experiment"),
    "m1-table": ("nepa3d.experiments.m1_table", "run the 75 fine-tunings of M1 and print their table"),
    "fewshot-table": ("nepa3d.analysis.fewshot_table", "print the table of the finished fine-tunings"),
    "pipeline-status": (
        "nepa3d.experiments.pipeline_status",
        "show which jobs of M1 are finished and which are running",
    ),
    "ucpr": ("nepa3d.analysis.retrieval_ucpr", "evaluate cross-view retrieval (UCPR)"),
    "scan-retrieval": ("nepa3d.analysis.scan_retrieval", "find meshes by single-view scans of them"),
    "cpac": ("nepa3d.analysis.completion_cpac_udf", "evaluate completion of the distance field (CPAC-UDF)"),
    "probe-cls": ("nepa3d.analysis.classification_probes", "evaluate classifiers on frozen features"),
    "evaluate": ("nepa3d.experiments.evaluate", "run all probes and controls for several checkpoints"),
    "ablation": ("nepa3d.experiments.ablation", "train variants of the recommended recipe and compare them"),
    "surfaces": ("nepa3d.analysis.surfaces", "write completed shapes as meshes, with scores"),
    "index": ("nepa3d.inference.build_index", "embed the shapes of a folder into an index"),
    "search": ("nepa3d.inference.search", "find the shapes of an index that are like a file"),
    "complete": ("nepa3d.inference.complete", "complete a scan: write the predicted surface as a mesh"),
    "embed": ("nepa3d.inference.embed", "embed a folder of meshes: one vector a shape"),
    "classify": ("nepa3d.inference.classify", "classify scans and meshes with a fine-tuned model"),
    "export-onnx": ("nepa3d.inference.export_onnx", "write the encoder as an ONNX model"),
    "explore": ("nepa3d.inference.explore.page", "look at the shapes of an index in the browser"),
    "compare": ("nepa3d.analysis.compare", "compare two results shape by shape"),
    "view": ("nepa3d.report.view", "show one cached shape as a table and a picture"),
    "report": ("nepa3d.report.page", "write the report of an experiment as one HTML page"),
    "tables": ("nepa3d.analysis.tables", "print results as tables"),
    "doctor": ("nepa3d.cli.doctor", "show which compilers, GPUs, modules and packages nepa3d finds"),
    "completion": ("nepa3d.cli.completion", "print the completion script for bash or zsh"),
}


def purpose(module: str) -> str:
    """What ``module`` does, in one line."""
    return next((what for known, what in COMMANDS.values() if known == module), module)


def spelled(module: str) -> str:
    """How ``module`` is started, as help shows it."""
    names = [name for name, (known, _) in COMMANDS.items() if known == module]
    return f"nepa3d {names[0]}" if names else f"python -m {module}"
