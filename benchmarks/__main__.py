"""``python -m benchmarks`` compares with peers; ``python -m benchmarks scaling`` times the pipeline against size."""

from __future__ import annotations

import sys

from benchmarks import run, scaling

if __name__ == "__main__":
    arguments = sys.argv[1:]
    raise SystemExit(scaling.main(arguments[1:]) if arguments[:1] == ["scaling"] else run.main(arguments))
