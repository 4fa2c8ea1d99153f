"""Clustering: k-means, nearest neighbours, and competitive learning of slots without labels."""

from __future__ import annotations

from slots.clustering.competitive import Step as Step
from slots.clustering.competitive import learn_slots as learn_slots
from slots.clustering.competitive import learning_step as learning_step
from slots.clustering.competitive import share_thresholds as share_thresholds
from slots.clustering.competitive import takes_part as takes_part
from slots.clustering.device_kmeans import device_centres as device_centres
from slots.clustering.kmeans import blocks as blocks
from slots.clustering.kmeans import by_size as by_size
from slots.clustering.kmeans import centres as centres
from slots.clustering.kmeans import directions as directions
from slots.clustering.kmeans import nearest_slots as nearest_slots
from slots.clustering.kmeans import owners as owners
from slots.clustering.kmeans import spherical_means as spherical_means
from slots.clustering.neighbours import nearest_neighbours as nearest_neighbours
from slots.clustering.slot_clusters import ClusterConfig as ClusterConfig
from slots.clustering.slot_clusters import SlotClusters as SlotClusters
