"""The refusals of the domain. ``app.api.problems`` says which HTTP status each becomes."""


class InferenceError(Exception):
    """Base of everything this package refuses; its text is one sentence for a person."""


class UnreadableImage(InferenceError):
    """The bytes are no image of a supported format, or a damaged or truncated one."""


class TooManyPixels(InferenceError):
    """The image's header announces more pixels than the limit; nothing was decoded."""


class UnknownModel(InferenceError):
    """The store holds no model of that name."""


class UnknownFile(InferenceError):
    """The version lists no file of that name."""


class UnknownVersion(InferenceError):
    """The model has no version of that name in the store."""


class BundleRejected(InferenceError):
    """A version in the store failed verification: the text says which file and why."""


class UnusableKey(InferenceError):
    """What should be a key for signatures is none; the text says what it is instead."""


class StoreNotWritable(InferenceError):
    """The store's folder cannot be written to; what it served before is untouched."""


class LabelNotKept(InferenceError):
    """An operator's label could not be written to disk."""


class UnsupportedFalseAlarmRate(InferenceError):
    """The rate is outside (0, 1) or finer than the calibration set can guarantee."""


class NonFiniteScore(InferenceError):
    """The model returned NaN or infinity: there is no verdict to give."""


class Overloaded(InferenceError):
    """The queue is full; the request was not started and can be sent again later."""


class ModelUnavailable(InferenceError):
    """The model is not loaded yet, or could not be loaded; the text says which."""
