"""``python -m benchmarks`` compares with peers; with ``scaling`` or ``shapes`` it times the pipeline itself."""

from __future__ import annotations

import sys

from benchmarks import run, scaling, shapes

COMMANDS = {"scaling": scaling.main, "shapes": shapes.main}

if __name__ == "__main__":
    name, *arguments = sys.argv[1:] or [""]
    raise SystemExit(COMMANDS[name](arguments) if name in COMMANDS else run.main(sys.argv[1:]))
