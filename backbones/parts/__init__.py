"""A network whose features are parts: patches of a few pixels, each recognised in a few cells of the picture."""

from backbones.parts.net import Parts as Parts
from backbones.parts.receptive_field import Field as Field
from backbones.parts.receptive_field import receptive_field as receptive_field
