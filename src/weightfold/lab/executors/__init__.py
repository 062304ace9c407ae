"""Where the runs of a sweep are made: in processes here, on Slurm, on Ray; found by name.

An executor is one of `concurrent.futures`, with what `base.RunExecutor` adds. `registry` opens one
of a spec, `work` is what a worker does, `board` tells how far it is. Nothing here imports torch,
submitit or Ray before work starts.
"""
