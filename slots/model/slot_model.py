"""`SlotModel`: preprocessing, views, backbone, head and class names, as one thing that predicts, saves and loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from slots.deprecation import renamed
from slots.features.example_ids import ExampleIds, check_example_ids
from slots.features.featurizer import settle
from slots.features.preprocessing import raw_inputs
from slots.features.source import FeatureSource
from slots.head.prediction import Prediction
from slots.labels import GivenLabels
from slots.model.examination import Examination, examine
from slots.model.state import ModelState
from slots.model.transaction import commit
from slots.novelty.assessment import Novelty
from slots.novelty.slot_novelty import assess, calibrated, recalibrate
from slots.progress import Progress
from slots.shapes import RawInputs
from slots.update.config import UpdateConfig
from slots.update.plan import plan_update
from slots.update.queries import Proposal, propose
from slots.update.report import UpdateReport
from slots.update.self_training import Pool


@renamed(recipe="backbone_spec")
class SlotModel(ModelState):
    """A backbone with a slot head, and all it takes to use them on raw inputs.

    Parameters
    ----------
    preprocessing : Preprocessing
        Checks raw inputs and scales them.
    head : IncrementalNeuralHashing
        The slots.
    backbone : nn.Module, optional
        From (batch, channel, height, width) to (batch, feature). Default: none, the inputs are the features.
    class_names : sequence of str
        Name of label ``i`` at place ``i``.
    views : str, default "none"
        Views matched beside the input itself, for example ``"shift1"`` (`slots.features.parse_views`).
    backbone_spec : tuple, optional
        ``(name, options)`` that rebuild the backbone at load. Default: the backbone's own ``name`` and ``options``.
    whitening : Whitening, optional
        Between the backbone's features and the slots (`slots.features.whitening`); fixed, as the backbone is.

    Examples
    --------
    >>> import numpy as np
    >>> from slots.training import TrainConfig, fit
    >>> x = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3]], dtype=np.float32)
    >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=TrainConfig(epochs=1, slots_per_class=1))
    >>> model.predict(np.array([[5.0, 0.0]], dtype=np.float32)).labels
    array([0])
    """

    def blocks(self, n: int, *, columns: int = 0) -> Iterator[slice]:
        """`Featurizer.blocks` of ``n`` examples; ``columns`` when there are more than slots."""
        return self.featurizer.blocks(n, columns=max(columns, self.head.n_slots))

    @torch.no_grad()
    def predict(self, x: RawInputs) -> Prediction:
        """Answer raw inputs.

        Parameters
        ----------
        x : array
            uint8 images, float features or a list of texts, as the model was fitted on; an empty batch gives an empty
            prediction.

        Returns
        -------
        Prediction

        Raises
        ------
        DataError
            If ``x`` has another kind or shape, or numbers that are not finite.
        EmptyHeadError
            If the model has no slots.
        """
        x = raw_inputs(x)
        self.preprocessing.check_form(x)
        self.head.require_slots()
        settle(self)
        caps = self.head.caps()
        answer, columns = self._kept_index.answerer(caps, len(x) * self.views.n_views)
        parts = []
        for rows in self.featurizer.blocks(len(x), columns=columns):
            parts.append(answer(self.features(self.preprocessing.check_finite(x[rows], rows.start))))
        return Prediction.concatenate(parts)

    def assess_novelty(
        self, x: RawInputs, *, false_alarm_rate: float = 0.05, calibration: RawInputs | None = None
    ) -> Novelty:
        """Say how foreign raw inputs are, and which of them to call novel.

        Parameters
        ----------
        x : array
            As `predict` takes it.
        false_alarm_rate : float in (0, 1), default 0.05
            Largest share of inputs like the training data that may be called novel.
        calibration : array, optional
            Familiar inputs that the model was never shown, to calibrate on. Default: the fit's held-out examples.

        Returns
        -------
        Novelty
            Scores (higher = more novel), p-values, decisions, nearest slots, reasons.

        Raises
        ------
        UsageError
            If the model has no calibration, or one too small for the rate.
        """
        novelty = calibrated(self.novelty) if calibration is None else recalibrate(self, raw_inputs(calibration))
        x = raw_inputs(x)
        self.preprocessing.check(x)
        source = FeatureSource(self.featurizer, x, keep=False)
        return assess(source, self.head, novelty, rate=false_alarm_rate)

    def examine(self, x: RawInputs, *, false_alarm_rate: float = 0.05) -> Examination:
        """Answer raw inputs and say how foreign they are, in one pass through the backbone.

        Parameters
        ----------
        x : array
            As `predict` takes it.
        false_alarm_rate : float in (0, 1), default 0.05
            Largest share of inputs like the training data that may be called novel.

        Returns
        -------
        Examination
            The same as `predict` and `assess_novelty` give, bit for bit.

        Raises
        ------
        DataError
            If ``x`` has another kind or shape, or numbers that are not finite.
        UsageError
            If the model has no calibration, or one too small for the rate.

        Examples
        --------
        >>> import numpy as np
        >>> from slots.training import TrainConfig, fit
        >>> rng = np.random.default_rng(0)
        >>> x = np.eye(3, dtype=np.float32)[np.arange(300) % 2] + rng.normal(0, 0.1, (300, 3)).astype(np.float32)
        >>> model, _ = fit(x, np.arange(300) % 2, config=TrainConfig(epochs=1, slots_per_class=1, held_out=0.2))
        >>> found = model.examine(np.float32([[0, 1, 0], [0, 0, 1]]))
        >>> int(found.prediction.labels[0]), found.novelty.novel
        (1, array([False,  True]))
        """
        novelty = calibrated(self.novelty)
        x = raw_inputs(x)
        self.preprocessing.check(x)
        source = FeatureSource(self.featurizer, x, keep=False)
        return examine(source, self.head, novelty, rate=false_alarm_rate, index=self._kept_index)

    @renamed(report="progress")
    def propose(
        self,
        x: RawInputs,
        *,
        budget: int | None = None,
        stop_below: int | None = None,
        radius: float | None = None,
        purity: float = 0.95,
        max_candidates: int = 2000,
        by: Literal["cover", "doubt"] = "cover",
        progress: Progress | None = None,
    ) -> Proposal:
        """What the slots do not match in new data, and the few examples whose labels would cover most of it.

        Parameters
        ----------
        x : array of shape (example, ...)
            New inputs, as the model was fitted on.
        budget : int, optional
            Largest number of queries (count, >= 0). Default: as many as earn their place.
        stop_below : int, optional
            Stop before a query that would cover fewer of the unmatched than this (count, >= 1). Default: 1 with a
            budget, else 1 in 500 of the unmatched and at least 2.
        radius : float, optional
            Angular radius of a candidate cap in radians. Default: the largest at which groups are as pure as wanted
            (`slots.rehearsal.group_radius`), at most what the present slots teach.
        purity : float in (0, 1], default 0.95
            Without ``radius``: wanted share of what a query stands for that has its label.
        max_candidates : int, default 2000
            With more unmatched examples than this every n-th is a candidate; so the cost grows in step with the data.
        by : {"cover", "doubt"}, default "cover"
            Whether each unmatched example counts the same, or each example by how likely its answer is wrong; then
            matched ones are asked about, too, where all that is remembered contradicts the slot.
        progress : callable, optional
            ``progress(step, share)``, told the progress.

        Returns
        -------
        Proposal
            The same for the same model, data and options (`slots.update.propose` says how). Pass it to `update`
            together with the same ``x``, and nothing goes through the backbone twice.

        Raises
        ------
        DataError
            If ``x`` is not what the model was fitted on.
        UsageError
            If a number is out of its range.
        """
        snapshot = self.snapshot()
        return propose(
            snapshot,
            snapshot.source(raw_inputs(x)),
            budget=budget,
            stop_below=stop_below,
            radius=radius,
            purity=purity,
            max_candidates=max_candidates,
            by=by,
            progress=progress,
        )

    @renamed(outlook="pool", report="progress")
    def update(
        self,
        x: RawInputs,
        labels: GivenLabels | None = None,
        *,
        proposal: Proposal | None = None,
        budget: int | None = None,
        config: UpdateConfig | None = None,
        pool: Pool | None = None,
        ids: ExampleIds | None = None,
        progress: Progress | None = None,
    ) -> UpdateReport:
        """Add slots for what no slot matches: labelled where a label is given, else as clusters with fresh ids.

        No answer that a slot gives is changed, for any input; and the model is changed all at once at the end, so that
        an error leaves it as it was.

        Parameters
        ----------
        x : array of shape (example, ...)
            New inputs, as the model was fitted on.
        labels : int array of shape (example,), or mapping from row to label, optional
            Label ids, -1 for unknown; a mapping may also hold names, and new names get the next ids.
        proposal : Proposal, optional
            What `propose` found for these inputs. Its queries without a label become clusters. Default: with labels,
            only they make slots; without, a proposal is made.
        budget : int, optional
            Largest number of clusters, when a proposal is made here (count, >= 0).
        config : UpdateConfig, optional
            How slots are made. Default: `UpdateConfig`'s own.
        pool : Pool, optional
            What `slots.update.self_training.make_pool` found for these inputs, where ``config.spread`` is set. Default:
            it is made.
        ids : sequence of str, optional
            Of each example the id in your own store, 1 to 256 characters. Those of the examples that the new slots
            remember are kept in `exemplar_ids`, so that an answer leads back to the item behind it. Default: none.
        progress : callable, optional
            ``progress(step, share)``, told the progress.

        Returns
        -------
        UpdateReport

        Raises
        ------
        DataError
            If inputs, labels or ids have another shape or kind than they must.

        Notes
        -----
        Nothing is trained but the new slots (`slots.update.plan_update` says how). The backbone and the old slots stay
        bit for bit as they are, and the oldest generation that fires answers alone (`slots.head.decision`); so for
        every possible input, seen or not, what the model matched before the update it answers in the same way after it.

        Examples
        --------
        >>> import numpy as np
        >>> from slots.training import TrainConfig, fit
        >>> x = np.array([[1, 0, 0], [2, 0.1, 0], [0, 1, 0], [0.1, 3, 0]], dtype=np.float32)
        >>> model, _ = fit(x, np.array([0, 0, 1, 1]), config=TrainConfig(epochs=1, slots_per_class=1))
        >>> done = model.update(np.array([[0, 0, 1], [0, 0.1, 2]], dtype=np.float32), {0: "up"})
        >>> done.slots_added, done.generation, model.class_name(int(model.predict(np.float32([[0, 0, 3]])).labels[0]))
        (1, 1, 'up')
        """
        x = raw_inputs(x)
        known = None if ids is None else check_example_ids(ids, len(x))
        planned = plan_update(
            self.snapshot(),
            x,
            labels,
            proposal=proposal,
            budget=budget,
            config=config,
            pool=pool,
            progress=progress,
        )
        if planned.slots is not None:
            commit(self, planned.slots, known)
        return planned.report
