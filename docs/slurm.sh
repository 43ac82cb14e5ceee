#!/usr/bin/env bash
#SBATCH --job-name=lockstep --nodes=10 --ntasks-per-node=1 --exclusive --time=04:00:00
# lockstep on whole nodes of a Slurm cluster: one block at a time on each. Submit it again to go on where it ended.
set -euo pipefail

ENVIRONMENT=$HOME/lockstep                        # where `pip install '.[all]'` was run in a checkout, seen by all nodes
OUT=$HOME/results/mine                            # the results folder
PLAN=(--preset full --threads 4 --seeds 0,1,2,3,4) # what to run

source "$ENVIRONMENT/bin/activate"
scheduler=tcp://$(hostname -i | cut -d' ' -f1):8786
dask scheduler --port 8786 --no-dashboard &
srun dask worker "$scheduler" --nworkers 1 --nthreads 1 --no-dashboard --resources lockstep=1 &
trap 'kill $(jobs -p)' EXIT
if [ -e "$OUT/plan.json" ]; then
    lockstep run --resume --out "$OUT" --cluster "$scheduler"
else
    lockstep run "${PLAN[@]}" --out "$OUT" --cluster "$scheduler"
fi
