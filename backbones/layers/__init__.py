"""Layers whose gradient explains them."""

from __future__ import annotations

from backbones.layers.branches import NegativeBranch as NegativeBranch
from backbones.layers.branches import Parallel as Parallel
from backbones.layers.gumbel_conv import GumbelConv2d as GumbelConv2d
from backbones.layers.gumbel_conv import check_top as check_top
from backbones.layers.input_norms import IterativeWhitening as IterativeWhitening
from backbones.layers.input_norms import PercentileNorm as PercentileNorm
from backbones.layers.l2_conv import L2Conv2d as L2Conv2d
from backbones.layers.or_layer import OrConv2d as OrConv2d
from backbones.layers.residual import Residual as Residual
from backbones.layers.scale_norm import ScaleNorm as ScaleNorm
from backbones.layers.silu_batchnorm import SiLUBatchNorm as SiLUBatchNorm
from backbones.layers.softmax_pooling import Mean as Mean
from backbones.layers.softmax_pooling import Scale as Scale
from backbones.layers.softmax_pooling import SoftMaxPool as SoftMaxPool
from backbones.layers.softmax_pooling import SoftMaxPool2d as SoftMaxPool2d
from backbones.layers.view_convs import PerspectiveConv2d as PerspectiveConv2d
from backbones.layers.view_convs import ProjectedConv2d as ProjectedConv2d
from backbones.layers.view_convs import ScaledConv2d as ScaledConv2d
from backbones.layers.whitening_stem import WhiteningStem as WhiteningStem
from backbones.layers.xand import XAND as XAND
