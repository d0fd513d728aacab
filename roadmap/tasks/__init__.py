"""Transfer: tasks, their heads, and where the weights of a run begin, as plain data."""
