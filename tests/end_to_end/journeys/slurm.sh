# A sweep on a SLURM cluster: planned, submitted from a login node, left alone, read afterwards.

# What it would do; loads no model, submits nothing.
sah plan -m hydra/launcher=slurm hydra.launcher.partition=main hydra.launcher.max_concurrent=1 \
    model=induction benchmark.samples=4 benchmark.context_tokens=512 attention=dense,sparse
# > 2 experiments: 2 to run in 1 job...
# > memory: the largest job needs about ...
squeue --noheader | wc -l
# > 0

# Submit and leave. The two attentions are arms of one job, which prefills each context once.
sah run -m hydra/launcher=slurm hydra.launcher.partition=main hydra.launcher.max_concurrent=1 \
    model=induction benchmark.samples=4 benchmark.context_tokens=512 attention=dense,sparse \
    hydra.launcher.detach=true
# > ... 2 experiments: 0 finished already, 0 duplicates, 2 to run
# > ... 1 job submitted for 2 experiments...
# > ... detached; use `sah status` to follow them
# > 2 detached
# > next: sah status --watch

# From any terminal, until nothing runs or waits.
sah status --watch
# > done 4 dense score 1.000
# > done 4 sparse score 1.000
# > 2 done
# > next: sah report

# The same command again submits nothing, and ends with the table.
sah run -m hydra/launcher=slurm hydra.launcher.partition=main \
    model=induction benchmark.samples=4 benchmark.context_tokens=512 attention=dense,sparse
# > ... 2 experiments: 2 finished already, 0 duplicates, 0 to run
# > dense 100.0 ...
# > sparse 100.0 ...
# > next: sah compare

# The job ends a moment after its last result.
until sacct -X --noheader --format State%12 | grep -E 'COMPLETED|FAILED'; do sleep 1; done
# > COMPLETED

# Each result names the job and the GPU that SLURM gave it.
grep -ho '"slurm_job": *"[^"]*"' outputs/*/*/*/*/results.json | sort | uniq -c
# > 2 "slurm_job":...
grep -ho '"cuda_visible_devices": *"[^"]*"' outputs/*/*/*/*/results.json | sort | uniq -c
# > 2 "cuda_visible_devices":...
