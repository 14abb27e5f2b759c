"""What can go wrong between a request and its image."""


class EngineError(Exception):
    """An engine cannot be built or run; the message says what to do."""


class InvalidRequestError(ValueError):
    """A request asks for what this model cannot make.

    Attributes:
        field: the request's field at fault, e.g. `class_id`.
    """

    def __init__(self, field: str, message: str) -> None:
        """Remember the field beside the message."""
        super().__init__(message)
        self.field = field
