"""Raw inputs to features: preprocessing, views and backbone."""

from __future__ import annotations

from slots.features.exemplars import support_features as support_features
from slots.features.exemplars import thumbnails as thumbnails
from slots.features.featurized import Featurized as Featurized
from slots.features.featurizer import Featurizer as Featurizer
from slots.features.preprocessing import Preprocessing as Preprocessing
from slots.features.source import FeatureSource as FeatureSource
from slots.features.source import unit_features as unit_features
from slots.features.views import Views as Views
from slots.features.views import parse_views as parse_views
