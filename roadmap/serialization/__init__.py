"""External data as values: the YAML of the study, `--set`, manifests, and the arguments of calls.

Belongs here: the requirements of values, and their conversion to and from plain data. It may import `roadmap.text`, and
nothing else. Designs, recipes and records do not belong here.
"""
