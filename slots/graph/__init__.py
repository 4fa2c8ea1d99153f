"""Slots as nodes of a graph, and its communities as clusters."""

from __future__ import annotations

from slots.graph.config import GraphConfig as GraphConfig
from slots.graph.discovery import discover as discover
from slots.graph.learning import at_level as at_level
from slots.graph.learning import learn_graph as learn_graph
from slots.graph.learning import regroup as regroup
from slots.graph.slot_graph import GraphLevel as GraphLevel
from slots.graph.slot_graph import SlotGraph as SlotGraph
