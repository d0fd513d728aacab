"""Images with objects or regions: what detection and segmentation are trained on."""
