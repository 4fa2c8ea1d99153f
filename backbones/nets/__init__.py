"""The backbones by name."""

from __future__ import annotations

from backbones.nets.cifar_resnet import CifarResNet as CifarResNet
from backbones.nets.cnn import Cnn as Cnn
from backbones.nets.directional import Directional as Directional
from backbones.nets.disjunction import Disjunction as Disjunction
from backbones.nets.explor import Explor as Explor
from backbones.nets.gumbel import Gumbel as Gumbel
from backbones.nets.pixels import Pixels as Pixels
from backbones.nets.positive import Positive as Positive
from backbones.nets.pretrained import Pretrained as Pretrained
from backbones.nets.pretrained import is_network_name as is_network_name
from backbones.nets.unfolding import Unfolding as Unfolding
