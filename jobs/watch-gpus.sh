#!/usr/bin/env bash
# Runs a job and shows, every few seconds, which processes hold which GPU while it runs: one a GPU, each the job's own rank.
# Usage: jobs/watch-gpus.sh RANKS JOB.yaml [key=value ...]
set -uo pipefail
[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
ranks=$1
shift
command -v nvidia-smi >/dev/null || { echo "watch-gpus: no nvidia-smi on this machine" >&2; exit 1; }
program=${MOERUN:-$(cd "$(dirname "$0")/.." && pwd)/build/moerun}

mpirun -n "$ranks" "$program" "$@" &
job=$!
trap 'kill -TERM "$job" 2>/dev/null' INT TERM
while kill -0 "$job" 2>/dev/null; do
  echo "--- $(date +%T)"
  nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory,name --format=csv,noheader
  for _ in 1 2 3 4 5; do kill -0 "$job" 2>/dev/null && sleep 1; done
done
wait "$job"
