"""Settings from environment variables ``ANOMALY_*`` and options of ``python -m app``. Validation creates no files."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, CliSettingsSource, NoDecode, SettingsConfigDict, SettingsError

from app.command_line import Parser, add_help
from app.inference.bundles.labels import require_writable
from app.inference.bundles.manifest import NAME_PATTERN
from app.inference.errors import LabelNotKept, UnusableKey
from app.suggestions import did_you_mean

PREFIX: Final = "ANOMALY_"

SHARED_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder in which workers share their metrics. Set by the process that starts them."""


# As browsers send it: in lower case, without a path, and without the default port.
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@A-Z]+")


# Read by the client and by docker-compose.yml. Others are set by Docker links and Kubernetes for services whose names
# begin with "anomaly".
_CLIENT_KEY: Final = f"{PREFIX}API_KEY"
_READ_ELSEWHERE: Final = {_CLIENT_KEY, f"{PREFIX}UID", f"{PREFIX}GID"}
_SERVICE_LINK: Final = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)")
_LINKED: Final = ("tcp://", "udp://")

# A single key of this form is more likely the name of a file that does not exist.
_PATH: Final = re.compile(r"[/~.].*|.*\\.*|.*\.(txt|keys?|pem|conf|cfg|env|csv|json|ya?ml|secrets?)")

ANY_HOST: Final = "*"
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f]*(:[0-9A-Fa-f.]*){2,}\]?")


class BadSettings(Exception):
    """A setting is invalid. The text is one line that names the variable."""


class Settings(BaseSettings):
    """Settings of the service. ANOMALY_PORT=9000 and --port 9000 are equivalent; options take precedence."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    model_store: Path = Field(Path("model_store"), description="folder of the model store")
    model: str = Field("mnist-5", pattern=NAME_PATTERN, description="default model")
    max_loaded_models: int = Field(
        16, ge=2, description="most models in memory; beyond it, the least recently used one is unloaded"
    )
    preload: Annotated[tuple[Annotated[str, Field(pattern=NAME_PATTERN)], ...], NoDecode] = Field(
        (), description="comma-separated models to load at startup; others are loaded on first use"
    )
    load_timeout_s: float = Field(
        60, gt=0, le=3600, description="most seconds for trying a new version of a model before it is loaded"
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free port")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="comma-separated API keys, or a file with one per line; empty: no key is required"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated origins, such as https://example.com, whose pages may use the API, or *; "
        "empty: none",
    )
    trusted_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated public keys, or a file with them: only versions signed with one are loaded; "
        "empty: no signature is required",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="comma-separated names and addresses, without a port, that requests may be sent to, or *; "
        "empty: only names of this machine if it listens on a loopback address, else all",
    )
    max_memory: int = Field(
        0,
        ge=0,
        description="memory of the service in bytes, all workers together; 0: that of its container, or machine",
    )
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="largest request body in bytes")
    max_pixels: int = Field(25_000_000, ge=1, description="largest image in pixels (width × height)")
    max_files: int = Field(64, ge=1, description="most image files in one request")
    max_batch: int = Field(
        0, ge=0, le=1024,
        description="most images per forward pass; 0: 64 for inputs of up to 4,096 values (64 × 64 grey), else 32",
    )  # fmt: skip
    queue_size: int = Field(256, ge=1, description="most images in progress; further requests get 429")
    request_timeout_s: float = Field(
        30, gt=0, le=86_400, description="most seconds per request, upload included; then 504"
    )
    drain_s: float = Field(
        1, ge=0, le=300, description="seconds to keep listening after SIGTERM while reporting not ready"
    )
    torch_threads: int = Field(1, ge=1, le=1024, description="threads per forward pass in each worker")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|auto|cuda(:\d{1,2})?)$",
        description="where models compute: cpu, cuda, cuda:1 and so on, or auto: cuda if there is one",
    )
    drift_path: Path | None = Field(
        None, description="folder that keeps the drift state across restarts; empty: not kept"
    )
    log_format: Literal["json", "console"] = Field("json", description="json: JSON lines; console: readable text")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level to log")
    feedback_path: str = Field("", description="file for operators' labels; empty: labels are not kept")
    feedback_images: Path | None = Field(
        None, description="folder for the images that operators label, with FEEDBACK_PATH; empty: images are not stored"
    )
    workers: int = Field(1, ge=1, le=256, description="number of server processes")

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if _looks_like_a_path(value) and not _names_a_file(value):
            raise ValueError("file not found; to use this value as a key, add a comma at its end")
        keys = _split(_keys_in(_text_of(value)) if _names_a_file(value) else value)
        if value.strip() and not keys:
            raise ValueError("it contains no key; unset it to serve without keys")
        return keys

    @field_validator("trusted_keys", mode="before")
    @classmethod
    def _read_public_keys(cls, value: Any) -> Any:
        if not isinstance(value, str) or not value:
            return value or ()
        from app.inference.bundles.signing import parse_public_keys  # noqa: PLC0415  10 MB, only if signatures are required

        try:
            keys = parse_public_keys(_text_of(value))
        except UnusableKey as error:
            raise ValueError(str(error)) from error
        if not keys:
            raise ValueError("it contains no key; unset it to load unsigned versions")
        return keys

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        origins = _split(value) if isinstance(value, str) else value
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin such as https://example.com, without a path, or *")
        return origins

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        hosts = _split(value) if isinstance(value, str) else value
        for host in hosts:
            if host != ANY_HOST and not _HOST_NAME.fullmatch(host):
                raise ValueError(f"{host!r} is not a name or an address without scheme, port and path, or *")
        return hosts

    @field_validator("feedback_path")
    @classmethod
    def _labels_are_writable(cls, value: str) -> str:
        if value:
            try:
                require_writable(Path(value))
            except LabelNotKept as error:
                raise ValueError(str(error)) from error
        return value

    @field_validator("preload", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return _split(value) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("drift_path", "feedback_images", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("model_store", mode="before")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("a folder is required")
        return value

    @model_validator(mode="after")
    def _queue_holds_a_request(self) -> Self:
        if self.queue_size < self.max_files:
            raise ValueError(
                f"{PREFIX}QUEUE_SIZE is {self.queue_size}, less than the {self.max_files} images "
                f"that {PREFIX}MAX_FILES allows in one request"
            )
        return self

    @model_validator(mode="after")
    def _images_have_labels(self) -> Self:
        if self.feedback_images is not None and not self.feedback_path:
            raise ValueError(f"{PREFIX}FEEDBACK_IMAGES needs {PREFIX}FEEDBACK_PATH, the file for the labels")
        return self

    @model_validator(mode="after")
    def _preloaded_models_fit(self) -> Self:
        wanted = len({self.model, *self.preload})
        if wanted > self.max_loaded_models:
            raise ValueError(
                f"{PREFIX}PRELOAD and the default model are {wanted} models, "
                f"more than the {self.max_loaded_models} that {PREFIX}MAX_LOADED_MODELS allows"
            )
        return self

    def as_environment(self) -> dict[str, str]:
        """These settings as environment variables, for worker processes."""
        return {
            # With a comma after each, so that no single value is taken for a path.
            PREFIX + name.upper(): "".join(f"{_plain(each)}," for each in value)
            if isinstance(value, tuple)
            else _plain(value)
            for name, value in self
        }


def _split(listed: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, listed.split(","))))


def _plain(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value)


def _names_a_file(value: str) -> bool:
    try:
        return value.startswith("@") or Path(value).is_file()
    except (OSError, ValueError):  # not a valid path, for example too long
        return False


def _looks_like_a_path(value: str) -> bool:
    """Whether a single value looks like the path of a file. Base64 can contain a slash, but in no existing folder."""
    if "," in value or "\n" in value:
        return False
    return _PATH.fullmatch(value.strip()) is not None or ("/" in value and _is_folder(Path(value.strip()).parent))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _text_of(value: str) -> str:
    """The content of the file that a setting names, or the setting itself."""
    if not _names_a_file(value):
        return value
    try:
        return Path(value.removeprefix("@")).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the file cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error


def _keys_in(text: str) -> str:
    """The lines of a key file, separated by commas and without comments, which begin with #."""
    return ",".join(line.partition("#")[0] for line in text.splitlines())


def _command_line() -> CliSettingsSource[Parser]:
    parser = Parser(prog="python -m app", usage="%(prog)s [options]", description=Settings.__doc__, allow_abbrev=False)
    add_help(parser)
    return CliSettingsSource(Settings, root_parser=parser)


def _reject_unknown(variables: Mapping[str, str]) -> None:
    """A misspelt variable has no effect; if it was to name the keys, the service would be open to everybody."""
    known = {name.upper() for name in Settings.model_fields}
    for name, value in sorted(variables.items()):
        upper = name.upper()
        own = upper.removeprefix(PREFIX)
        if own == upper or own in known or upper in _READ_ELSEWHERE:
            continue
        if not _SERVICE_LINK.fullmatch(upper) and not value.startswith(_LINKED):
            hint = did_you_mean(own, known).replace("'", f"'{PREFIX}", 1)
            raise BadSettings(f"{name} is not a setting{hint or ' of the service'}")


def read_settings(arguments: list[str] | None = None) -> Settings:
    """Reads the environment and, if given, the command line.

    Raises:
        BadSettings: a value is invalid, or a variable is not a setting. The text never contains keys.
    """
    try:
        _reject_unknown(os.environ)
        options = {} if arguments is None else {"_cli_settings_source": _command_line()(args=arguments)}
        settings = Settings(**options)  # type: ignore[arg-type]
        if os.environ.get(_CLIENT_KEY) and not settings.api_keys:
            raise BadSettings(
                f"{_CLIENT_KEY} is the key that the client sends, and this service would require none: "
                f"set {PREFIX}API_KEYS, or unset {_CLIENT_KEY}"
            )
        return settings
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise BadSettings(reason) from error
        name = str(first["loc"][0])
        value = "" if name.endswith("_keys") else f" (got {first['input']!r})"
        raise BadSettings(f"{PREFIX}{name.upper()}: {reason}{value}") from error
    except SettingsError as error:
        raise BadSettings(str(error)) from error
