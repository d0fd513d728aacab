"""One run's training: the engine, the run in training, the state it changes, checkpoints, evaluation, trackers.

May import `roadmap`, `runner.machine` and `runner.data`. `runner/launch` decides which runs are trained, and where.
"""
