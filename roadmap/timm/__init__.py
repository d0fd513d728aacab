"""The rungs as models of timm: `timm.create_model("roadmap_resnet50_gelu", num_classes=10)`.

Importing this package registers them: the network with timm's interface, the functions that timm calls, and the folder
in which timm and the Hugging Face hub exchange trained models. Names are those of regime and rung,
`roadmap_resnet200_kernel_size_7`; the start of a regime is `roadmap_resnet50`. Other rungs are made by
`timm.create_model("roadmap_rung", regime="resnet-50", rung="gelu+layer-norm")`, designs as plain data by
`timm.create_model("roadmap_design", design=...)`.

May import all of roadmap except its command and `roadmap.api`.
"""

from roadmap.timm.network import TimmNetwork
from roadmap.timm.registry import NAMES, model_name

__all__ = ["NAMES", "TimmNetwork", "model_name"]
