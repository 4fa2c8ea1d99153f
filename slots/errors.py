"""Errors a caller may want to catch; each carries the exit status the command line ends with."""

from __future__ import annotations


class SlotsError(Exception):
    """Base of all errors of this package. A message is one sentence on what was wrong and one on what to do."""

    exit_code = 1


class UsageError(SlotsError, ValueError):
    """An argument or option that cannot be honoured."""

    exit_code = 2


class DataError(SlotsError, ValueError):
    """Data that is missing, damaged or not of the form asked for."""

    exit_code = 3


class ModelError(SlotsError):
    """A model folder that is missing, damaged, foreign or of a newer version."""

    exit_code = 4


class EmptyHeadError(ModelError):
    """A head without slots was asked for an answer."""


class StorageError(SlotsError, OSError):
    """Writing failed: no permission, no space left; what was on disk before is still whole."""

    exit_code = 5


class OutdatedError(StorageError):
    """Another writer was faster: what was to be saved does not go on from what the folder holds now."""


class ServiceError(SlotsError):
    """A service that cannot be reached, stays busy, or ended the work before it was done."""

    exit_code = 5


class RankLostError(SlotsError):
    """Another process of a distributed fit is gone, so that what this one waits for will never come."""

    exit_code = 5


class MissingExtraError(SlotsError, ImportError):
    """An optional dependency is needed; the message names the extra that brings it."""

    exit_code = 2
