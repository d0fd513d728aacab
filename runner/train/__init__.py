"""One run's training: the engine, the state it trains, checkpoints, evaluation, trackers.

May import `roadmap`, `runner.machine` and `runner.data`. Which runs are trained, and where, is `runner/launch`.
"""
