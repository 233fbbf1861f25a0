#!/usr/bin/env bash
# Measures a node of 8, 4 or 2 GPUs in less than ten minutes, on a node that builds nothing: the same bits in every
# layout, the processes that hold the GPUs, the exchange of tokens, the whole model's throughput, and a killed rank.
# Writes OUT.json and OUT.txt (default: eight-gpus). What each part does: docs/eight-gpus.md.
# Usage: jobs/eight-gpus.sh [--out OUT] [--parts same_bits,gpu_processes,exchange,throughput,killed_rank] [--budget SECONDS]
#                           [--ceilings GB/s,TFLOP/s] [--device cpu]
# --device cpu tries the measuring itself on two CPU ranks, with the tiny model. MOERUN= and MPIRUN= replace program and launcher.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

program=${MOERUN:-}
for place in "$here/moerun" "$here/../bin/moerun" "$here/../build/moerun" "$here/../build/bundle/bin/moerun"; do
  [ -n "$program" ] || [ ! -x "$place" ] || program=$place
done
[ -n "$program" ] || { echo "eight-gpus: no moerun beside this script or in build/: make, or MOERUN=/path/to/moerun" >&2; exit 2; }

python=
for candidate in python3 /usr/bin/python3; do
  [ -n "$python" ] || ! "$candidate" -c 'import h5py, numpy' 2>/dev/null || python=$candidate
done
[ -n "$python" ] || { echo "eight-gpus: needs a python3 with h5py and numpy" >&2; exit 2; }

case " $* " in
  *" --device cpu "* | *" --device=cpu "*) export OMP_NUM_THREADS=1 ;;
  *) command -v nvidia-smi >/dev/null && nvidia-smi -L >&2 || { echo "eight-gpus: nvidia-smi finds no GPU here (--device cpu tries the measuring without)" >&2; exit 2; } ;;
esac
# A rank has several threads: not bound to one core.
root=$([ "$(id -u)" -ne 0 ] || echo --allow-run-as-root)
export MPIRUN=${MPIRUN:-mpirun --oversubscribe --bind-to none $root}
# NVLink multicast stays off.
export NCCL_NVLS_ENABLE=0
exec "$python" "$here/../tests/bench/eight_gpus" --program "$program" "$@"
