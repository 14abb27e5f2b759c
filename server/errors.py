"""Every way in which the server declines or fails a request. `server.api.problems` maps each to HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ServeError(Exception):
    """A request that gets no images; the message is written for the client."""


class RejectedError(ServeError):
    """Refused at the door: nothing was computed."""


class UnauthenticatedError(RejectedError):
    """A key is needed.

    Attributes:
        wrong_key: whether one came that is not known.
    """

    def __init__(self, message: str, *, wrong_key: bool = False) -> None:
        """Remember whether a key came beside the message."""
        super().__init__(message)
        self.wrong_key = wrong_key


class ForbiddenError(RejectedError):
    """This caller may not do this."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a request body and what is wrong with it."""

    field: str
    message: str


class InvalidInputError(RejectedError):
    """The request body asks for something that cannot be made.

    Attributes:
        errors: one entry for every field at fault.
    """

    def __init__(self, errors: Sequence[FieldError]) -> None:
        """Join the messages of all fields into one."""
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = tuple(errors)


class UnknownModelError(RejectedError):
    """No model of this name is served."""


class UnknownVersionError(RejectedError):
    """The model is served, but not in this version."""


class VersionRefusedError(RejectedError):
    """The version cannot be served: damaged, not what it should be, or too large."""


class ConflictError(RejectedError):
    """What is served now does not allow this."""


class BodyTooLargeError(RejectedError):
    """The request body has more bytes than the server reads."""


class BodyTimeoutError(RejectedError):
    """The request body did not arrive in time."""


class MalformedRequestError(RejectedError):
    """What came is not HTTP."""


class HeadTooLargeError(RejectedError):
    """The request's first line and headers have more bytes than the server reads."""


class HeadTimeoutError(RejectedError):
    """The request's headers did not arrive in time."""


class UnsupportedMediaTypeError(RejectedError):
    """The request body says that it is something other than JSON."""


class NotAcceptableError(RejectedError):
    """The Accept header allows no form in which this answer could be given."""


class UnknownJobError(RejectedError):
    """There is no such job, or it is somebody else's."""


class JobConflictError(RejectedError):
    """The job's state does not allow this."""


class IdempotencyError(RejectedError):
    """The Idempotency-Key was used for another request."""


class StorageError(RejectedError):
    """The disk, or the part of it that jobs may use, cannot take a job's images."""


class RetryLaterError(RejectedError):
    """The same request may succeed later.

    Attributes:
        retry_after_s: seconds after which to try again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        """Remember when to come back beside the message."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(RetryLaterError):
    """The waiting queue has no room for this request's images."""


class TooLateError(RetryLaterError):
    """The deadline would be missed; `retry_after_s` is infinite where waiting does not help."""


class RequestCancelledError(ServeError):
    """Somebody cancelled the request by its id."""


class UnknownRequestError(RejectedError):
    """No request of this id is in progress."""


class NotReadyError(RetryLaterError):
    """The model is loading, or failed its check."""


class DrainingError(RetryLaterError):
    """The server finishes what it accepted and takes nothing new."""


class NoReplicaError(RetryLaterError):
    """No replica of a cluster is left that could answer."""


class NotInClusterError(RejectedError):
    """A single server has this; a cluster of replicas has not."""


class TooManyConnectionsError(RetryLaterError):
    """The server has no connection left."""


class CallerBusyError(RetryLaterError):
    """The caller has as many requests in progress as it may have."""


class RateLimitError(RetryLaterError):
    """The caller has had as many images in a minute as it may have."""


class DeadlineError(ServeError):
    """The images were not finished in time."""


class EngineFailureError(ServeError):
    """The engine raised an error while making these images."""


class ClientDisconnectedError(ServeError):
    """The client closed the connection before its answer was ready."""
