"""One run's training: the engine, the state it trains, checkpoints, evaluation, trackers.

May import `roadmap`, `runner.machine` and `runner.data`. `runner/launch` decides which runs are trained, and where.
"""
