"""What is measured or taken from networks: speed and memory, the input pipeline, robustness, exported files.

May import `roadmap` and all of `runner`.
"""
