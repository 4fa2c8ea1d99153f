"""Has the stream changed? Online conformal ranks, a test martingale on them, and minutes for a plot."""

from __future__ import annotations

from protocols.service.drift.martingale import Bets as Bets
from protocols.service.drift.martingale import SimpleJumper as SimpleJumper
from protocols.service.drift.minutes import Minute as Minute
from protocols.service.drift.monitor import Alarm as Alarm
from protocols.service.drift.monitor import Monitor as Monitor
from protocols.service.drift.monitor import Observation as Observation
from protocols.service.drift.ranks import OnlineRanks as OnlineRanks
