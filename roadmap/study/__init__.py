"""`ablations.yaml`: its schema, loading and validation, and the rungs and ablations that it describes.

May import `roadmap.data`, `roadmap.network` and the modules beside this package. Code about runs does not belong here.
"""
