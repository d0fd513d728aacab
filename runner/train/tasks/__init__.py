"""The tasks that the engine trains: what a batch is, its loss, and how a network is evaluated."""
