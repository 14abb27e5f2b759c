"""Every way in which a model can be refused, one type each."""


class ModelError(Exception):
    """Something is wrong with a model, its files or its name; the message says what to do."""


class ModelNotFoundError(ModelError):
    """No model, version or catalogue entry has this name."""


class CheckpointError(ModelError):
    """A checkpoint file cannot be used: damaged, truncated or of an unknown layout."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint asks for something that loading weights never needs, such as running code."""


class SchemaMismatchError(CheckpointError):
    """A checkpoint's tensor names or shapes are not those of the network it claims to be."""


class NonFiniteWeightsError(CheckpointError):
    """A checkpoint holds NaN or infinite weights."""


class DownloadError(ModelError):
    """A catalogue entry could not be downloaded; the message says how to place the file by hand."""
