"""Images with objects or a class for each pixel: what detection and segmentation are trained on.

May import what `runner.data` may, and its modules except `runner.data.datasets`, which reads these data sets too.
"""
