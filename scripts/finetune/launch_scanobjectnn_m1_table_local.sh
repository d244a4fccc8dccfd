#!/usr/bin/env bash
# The 75 fine-tunings of the M1 table on the GPUs of this machine (SLOTS=0,1).
# Variables named as its flags in upper case change them, here and under `qsub -v NAME=value`; flags may follow too.
set -euo pipefail
for root in "$(cd "$(dirname "$0")/../.." && pwd)" "${PBS_O_WORKDIR:-}" "${SLURM_SUBMIT_DIR:-}"; do
  [ ! -f "$root/scripts/run.sh" ] || break
done
. "$root/scripts/run.sh" nepa3d.experiments.m1_table "$@"
