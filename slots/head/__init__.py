"""The head: slots as caps on the sphere, thresholds, decisions and predictions."""

from __future__ import annotations

from slots.head.caps import SlotCaps as SlotCaps
from slots.head.caps import free_radius as free_radius
from slots.head.caps import margins as margins
from slots.head.deciding.exact import exact_scores as exact_scores
from slots.head.decision import CandidatePairs as CandidatePairs
from slots.head.decision import MatchedPairs as MatchedPairs
from slots.head.decision import best_pairs as best_pairs
from slots.head.decision import decide as decide
from slots.head.decision import matching_pairs as matching_pairs
from slots.head.exact_thresholds import PrecisionAccumulator as PrecisionAccumulator
from slots.head.exact_thresholds import precision_thresholds_over as precision_thresholds_over
from slots.head.hashing import IncrementalNeuralHashing as IncrementalNeuralHashing
from slots.head.pooled_answers import PooledSlots as PooledSlots
from slots.head.pooling import class_groups as class_groups
from slots.head.pooling import max_pool as max_pool
from slots.head.pooling import softmax_pool as softmax_pool
from slots.head.prediction import Answer as Answer
from slots.head.prediction import AnswerShares as AnswerShares
from slots.head.prediction import Prediction as Prediction
from slots.head.prediction import changed_matched as changed_matched
from slots.head.similarities import best_view as best_view
from slots.head.similarities import normalize as normalize
from slots.head.similarities import similarity as similarity
from slots.head.thresholds import precision_thresholds as precision_thresholds
from slots.head.thresholds import support_thresholds as support_thresholds
