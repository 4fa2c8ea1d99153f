"""Sentence encoders as backbones: from strings to features, with weights that lie on this machine."""

from __future__ import annotations

from backbones.text.encoder import TextBackbone as TextBackbone
from backbones.text.encoder import is_text_name as is_text_name
from backbones.text.finding import WeightsError as WeightsError
from backbones.text.finding import find_model_folder as find_model_folder
