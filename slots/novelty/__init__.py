"""Out-of-distribution detection with p-values."""

from __future__ import annotations

from slots.novelty.assessment import Novelty as Novelty
from slots.novelty.assessment import assess_distances as assess_distances
from slots.novelty.conformal import p_values as p_values
from slots.novelty.conformal import threshold as threshold
from slots.novelty.detector import NoveltyDetector as NoveltyDetector
from slots.novelty.distances import stack_distances as stack_distances
from slots.novelty.k_flats import squared_distances as squared_distances
from slots.novelty.slot_novelty import ModelNovelty as ModelNovelty
from slots.novelty.slot_novelty import assess as assess
from slots.novelty.slot_novelty import calibrated as calibrated
from slots.novelty.slot_novelty import learn_novelty as learn_novelty
from slots.novelty.slot_novelty import recalibrate as recalibrate
