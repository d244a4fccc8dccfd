#!/usr/bin/env bash
# ScanObjectNN's h5 files to caches. Of the variants in main_split, VARIANT chooses one: plain, augmented25_norot,
# augmented25rot, augmentedrot, augmentedrot_scale75.
# Variables named as its flags in upper case change them, here and under `qsub -v NAME=value`; flags may follow too.
set -euo pipefail
set -a
: "${SCAN_ROOT:=data/ScanObjectNN/h5_files/main_split}" "${OUT_ROOT:=data/scanobjectnn_main_split_v2}" "${SPLIT:=all}"
: "${PT_POOL:=4000}" "${RAY_POOL:=256}" "${PT_SURFACE_RATIO:=0.5}" "${PT_SURFACE_SIGMA:=0.02}" "${SEED:=0}"
set +a
for root in "$(cd "$(dirname "$0")/../.." && pwd)" "${PBS_O_WORKDIR:-}" "${SLURM_SUBMIT_DIR:-}"; do
  [ ! -f "$root/scripts/run.sh" ] || break
done
. "$root/scripts/run.sh" nepa3d.data.preprocess_scanobjectnn "$@"
