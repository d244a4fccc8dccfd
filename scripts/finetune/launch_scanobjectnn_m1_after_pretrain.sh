#!/usr/bin/env bash
# The M1 table once the pretrainings are done: runs what is left of them first, and stops if one fails.
set -euo pipefail
scripts="$(cd "$(dirname "$0")/.." && pwd)"
bash "$scripts/pretrain/launch_shapenet_m1_pretrains_local.sh"
bash "$scripts/finetune/launch_scanobjectnn_m1_table_local.sh" "$@"
