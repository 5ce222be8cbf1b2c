"""Errors of the domain. ``app.api.problems`` maps each of them to an HTTP status."""


class InferenceError(Exception):
    """Base class of all errors of this package; its text is one sentence for a person."""


class UnreadableImage(InferenceError):
    """The bytes are not an image of a supported format, or the image is damaged, truncated or hostile."""


class TooManyPixels(InferenceError):
    """The image's header announces more pixels than the limit; nothing was decoded."""


class DecodingUnavailable(InferenceError):
    """No process to decode images can be started; the text gives the reason."""


class UnknownModel(InferenceError):
    """The store has no model of that name."""


class UnknownFile(InferenceError):
    """The version has no file of that name."""


class UnknownVersion(InferenceError):
    """The model has no version of that name in the store."""


class BundleRejected(InferenceError):
    """A version in the store failed verification; the text names the file and the reason."""


class UnusableKey(InferenceError):
    """A signing key or a trusted key is not valid; the text gives the reason and never quotes the key."""


class StoreNotWritable(InferenceError):
    """The store's folder cannot be written to; the versions that are served did not change."""


class LabelNotKept(InferenceError):
    """An operator's label could not be written to disk."""


class UnsupportedFalseAlarmRate(InferenceError):
    """The rate is outside (0, 1) or smaller than the calibration set can guarantee."""


class NonFiniteScore(InferenceError):
    """The model returned NaN or infinity, so there is no verdict."""


class TooMuchMemory(InferenceError):
    """The request or the image takes more memory than the process can ever give it; nothing was decoded."""


class Overloaded(InferenceError):
    """The queue is full; processing has not started, and the request can be sent again later.

    Attributes:
        retry_after_s: when there will probably be room, in seconds.
    """

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class ModelUnavailable(InferenceError):
    """The model is not loaded yet, or it could not be loaded; the text says which."""


class DeviceUnavailable(InferenceError):
    """Models cannot compute on this device; the text says why."""
