"""torchvision's operators by name alone, so that its transforms can be imported.

Its library, which makes the operators, is built for torch of CUDA and cannot be loaded beside another torch.
scripts/nightly.sh copies this file into such a torchvision. Nothing that is tested calls an operator.
"""

from torch.library import Library

library = Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms", "qroi_align"):
    library.define(f"{name}() -> ()")
for name in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"):
    library.define(f"{name}() -> ()")
    library.define(f"_{name}_backward() -> ()")
