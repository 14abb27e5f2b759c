"""What can go wrong between data and a finished model, one type each."""


class TrainerError(Exception):
    """Something in training or evaluation cannot be done; the message says what to do."""


class PackageError(TrainerError):
    """A package cannot be had, is not the pinned one, or lacks a drawing that the data set needs."""


class DataError(TrainerError):
    """A data set does not hold what it must."""


class NonFiniteLossError(TrainerError):
    """A loss or gradient is NaN or infinite; training has stopped before it could harm the saved state."""


class StatisticsError(TrainerError):
    """A figure cannot be computed from these features."""
