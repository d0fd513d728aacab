"""External data as values: the YAML of the study, `--set`, manifests, and the arguments of calls.

May import `roadmap.text`, and nothing else. Belongs here: the requirements of values, and their conversion to and from
plain data. Designs, recipes and records do not.
"""
