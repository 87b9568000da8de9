"""Settings: environment variables, also accepted as command-line arguments.

Nothing reads the environment at import: entry points build one ``Settings`` and pass it on.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.domain.documents import MAX_LABELS
from app.domain.encryption import normalised_key
from app.domain.errors import SettingsInvalid
from app.domain.limits import MAX_ATTRIBUTES, DocumentLimits
from app.domain.retention import Kept, RetentionPolicy
from app.domain.text import MAX_DEPTH

Durability = Literal["always", "everysec", "none", "unknown"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

Days = Annotated[int, Field(ge=0, le=3650)]

_DATABASE_URL = re.compile(
    r"[^:]+://(?:[^:/]*(?::[^@]*)?@)?(\[[^/?]+\]|[^/:?]+)?(?::([^/?]*))?(?:/[^?]*)?(?:\?(.*))?$"
)
"""Its host, port and parameters, as SQLAlchemy reads them."""
_UNREADABLE = (
    "cannot be read: one host, and a port of at most 65535, if any; in user and password whatever"
    " is not a letter or digit must be percent-encoded"
)

DATABASE_PARAMETERS = frozenset(
    """
    application_name channel_binding client_encoding connect_timeout dbname
    fallback_application_name gssdelegation gssencmode gsslib host hostaddr keepalives
    keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts
    max_protocol_version min_protocol_version oauth_client_id oauth_client_secret
    oauth_issuer oauth_scope options passfile password port replication require_auth
    requirepeer scram_client_key scram_server_key service ssl_max_protocol_version
    ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey
    sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni target_session_attrs
    tcp_user_timeout user
    """.split()  # noqa: SIM905  (names to read)
)
"""What libpq takes in a URL (its section 34.1.2); another library's are an error there."""
QUEUE_PARAMETERS = frozenset(
    """
    client_name db password ssl_ca_certs ssl_ca_data ssl_ca_path ssl_cert_reqs ssl_certfile
    ssl_check_hostname ssl_keyfile ssl_keyfile_password username
    """.split()  # noqa: SIM905  (names to read)
)
"""Of redis-py's those that say where and who; others change how its client behaves."""

DEFAULT_MODEL_PATH = Path(__file__).resolve().parent.parent / "models" / "artifact"


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= 65_535  # noqa: PLR2004  (of TCP)


def _is_readable(url: str) -> bool:
    """Tell whether a URL has a host, and no part of a password where something else belongs."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return "@" not in parts.path + parts.query + parts.fragment


def _refuse(unknown: AbstractSet[str]) -> None:
    if unknown:
        message = f"has parameters that no connection to it takes: {', '.join(sorted(unknown))}"
        raise ValueError(message)


class Settings(BaseSettings):
    """What a process needs to know from outside; each field is an environment variable."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: str = "postgresql://localhost:5432/docyard"
    """Postgres; ``postgres://`` (Heroku) and ``postgresql://`` are both understood."""
    redis_url: str = "redis://localhost:6379/0"
    """Redis or Valkey; ``rediss://`` for TLS, ``unix://`` for a socket."""
    redis_tls_url: str | None = None
    """Preferred to ``redis_url`` where a platform sets both."""
    redis_tls_verify: bool = True
    """False accepts the self-signed certificates of Heroku's Redis; logged at start."""
    redis_namespace: str = "docyard"
    """Prefix of every Redis key, for installations that share a server."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    web_concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    public_url: str | None = None
    """How the world reaches this installation; the ``source`` of CloudEvents that are sent."""
    admin_api_key: str | None = None
    allow_anonymous: bool = False
    require_durability: Literal["always", "everysec"] | None = None
    """Refuse to start on a Redis that promises less."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 8 * 1024 * 1024
    """Largest document: as a body, as a line of ``POST /documents/bulk``, within an array."""
    max_bulk_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024**3
    """Largest body of ``POST /documents/bulk``, inflated."""
    max_batch_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 16 * 1024 * 1024
    """Largest array; it is queued in one append."""
    max_batch_documents: Annotated[int, Field(ge=1, le=100_000)] = 10_000
    """Most elements of an array."""
    max_topics: Annotated[int, Field(ge=0, le=MAX_LABELS)] = MAX_LABELS
    """Most topics of a document."""
    max_keys: Annotated[int, Field(ge=0, le=MAX_LABELS)] = MAX_LABELS
    """Most keys of a document."""
    max_attributes: Annotated[int, Field(ge=0, le=MAX_ATTRIBUTES)] = MAX_ATTRIBUTES
    """Most members of a document's attributes, at all levels."""
    max_depth: Annotated[int, Field(ge=1, le=MAX_DEPTH)] = MAX_DEPTH
    """Most levels of a document's attributes."""
    max_header_bytes: Annotated[int, Field(ge=1024, le=1024 * 1024)] = 32 * 1024
    """Largest head of a request, URL included."""
    max_url_bytes: Annotated[int, Field(ge=256, le=65_000)] = 8 * 1024
    """Longest URL: path and query."""
    max_connections: Annotated[int, Field(ge=8, le=1_000_000)] = 10_000
    """Connections of clients to one web process; beyond them idle ones are closed."""
    read_timeout_seconds: Annotated[float, Field(gt=0)] = 20.0
    """For the head of a request; as long a body may be too slow, or an answer stay unread."""
    min_body_bytes_per_second: Annotated[int, Field(ge=0)] = 500
    """What a body must come with on average, behind that time."""
    upload_idle_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Of silence within a body of ``POST /documents/bulk``, behind which it ends."""
    keep_alive_seconds: Annotated[int, Field(ge=1)] = 75
    """For which a connection is kept open between requests."""
    high_water_mark: Annotated[int, Field(ge=1)] = 500_000
    """Documents queued in a lane from which on the intake answers 503; half of it for bulk."""

    destination_allow_cidrs: Annotated[tuple[Network, ...], NoDecode] = ()
    """Private networks that destinations may live in, comma-separated CIDRs."""
    encryption_keys: Annotated[tuple[str, ...], NoDecode, Field(repr=False)] = ()
    """Encrypt secrets and credentials at rest, comma-separated: the first encrypts, all decrypt."""
    delivery_concurrency: Annotated[int, Field(ge=1, le=1000)] = 50
    """Requests in flight to one destination."""
    lease_seconds: Annotated[float, Field(gt=0)] = 15.0
    """How long a destination stays with a delivery process that has gone silent."""

    attempts_retention_days: Annotated[int, Field(ge=1, le=3650)] = 14
    """Days for which attempts are kept."""
    documents_retention_days: Days = 0
    """Days behind its last update after which a document goes; 0 keeps for ever, here and below."""
    deliveries_retention_days: Days = 90
    """Days for which a delivery is kept that has ended."""
    results_retention_days: Days = 0
    """Days for which what collectors returned and called for is kept; 0: with its delivery."""
    events_retention_days: Days = 14
    """Days for which operational events are kept."""
    rejected_retention_days: Days = 0
    """Days for which documents are kept that could not be stored."""
    batches_retention_days: Days = 90
    """Days for which the counts of a batch are kept."""
    replays_retention_days: Days = 90
    """Days for which finished replays are kept."""
    counters_retention_days: Days = 90
    """Days for which counters are kept by the hour; older ones by the day."""
    receipts_retention_days: Days = 14
    """Days for which it is known which chunks were applied."""
    tombstones_retention_days: Days = 90
    """Days for which older copies of a deleted document are kept out."""

    router: str | None = None
    """``package.module:Class``, what chooses the destinations of documents."""
    collectors: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules with collectors, comma-separated: ``shop.archive,shop.search``."""
    event_model: str | None = None
    """``package.module:Class``: a Pydantic model that events of ``/v1/event`` must fit."""

    model_path: Path = DEFAULT_MODEL_PATH
    classify_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """For the model's answer to a chunk, behind which its process ends and another goes on."""
    worker_min: Annotated[int, Field(ge=1, le=64)] = 1
    """Ingest processes that are always there."""
    worker_max: Annotated[int, Field(ge=1, le=64)] | None = None
    """Most ingest processes; None: what cores and memory allow."""
    ingest_processes: Annotated[int, Field(ge=0, le=64)] | None = None
    """A fixed number of ingest processes, whatever the queue; None: as the queue asks."""
    delivery_processes: Annotated[int, Field(ge=0, le=64)] | None = None
    """Processes that deliver; None: as many as cores and memory suggest."""
    worker_threads: Annotated[int, Field(ge=1, le=32)] = 8
    """Chunks that an ingest process holds at a time; small ones share a transaction."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, url: str) -> str:
        if not url.startswith(("postgres://", "postgresql://", "postgresql+psycopg://")):
            message = "must begin with postgres:// or postgresql://"
            raise ValueError(message)
        found = _DATABASE_URL.match(url)
        host, port, query = found.groups(default="") if found else ("", "", "")
        if "@" in host or not _is_port(port or "0"):
            raise ValueError(_UNREADABLE)
        _refuse(parse_qs(query, keep_blank_values=True).keys() - DATABASE_PARAMETERS)
        return url

    @field_validator("redis_url", "redis_tls_url")
    @classmethod
    def _known_scheme(cls, url: str | None) -> str | None:
        if url and not url.startswith(("redis://", "rediss://", "unix://")):
            message = "must begin with redis://, rediss:// or unix://"
            raise ValueError(message)
        if url and not url.startswith("unix://") and not _is_readable(url):
            raise ValueError(_UNREADABLE)
        if url:
            parameters = parse_qs(urlsplit(url).query, keep_blank_values=True)
            _refuse(parameters.keys() - QUEUE_PARAMETERS)
            if not all(database.isdecimal() for database in parameters.get("db", ())):
                message = "db must be a number"
                raise ValueError(message)
        return url or None

    @field_validator("destination_allow_cidrs", mode="before")
    @classmethod
    def _split_cidrs(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(ipaddress.ip_network(part.strip()) for part in value.split(",") if part)
        return value

    @field_validator("encryption_keys", mode="before")
    @classmethod
    def _usable_keys(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(normalised_key(part) for part in value.split(",") if part.strip())
        return value

    @field_validator("collectors", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("admin_api_key", "event_model", "router")
    @classmethod
    def _not_blank(cls, key: str | None) -> str | None:
        return key.strip() or None if key else None

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.worker_max is not None and self.worker_max < self.worker_min:
            message = "WORKER_MAX is less than WORKER_MIN"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _redis_present(self) -> Self:
        if not (self.redis_url or self.redis_tls_url):
            message = "REDIS_URL is empty"
            raise ValueError(message)
        return self

    @property
    def queue_url(self) -> str:
        """The Redis URL in force."""
        return self.redis_tls_url or self.redis_url

    @property
    def document_limits(self) -> DocumentLimits:
        """How much a document may have beside its text."""
        return DocumentLimits(
            topics=self.max_topics,
            keys=self.max_keys,
            attributes=self.max_attributes,
            depth=self.max_depth,
        )

    @property
    def retention(self) -> RetentionPolicy:
        """How long things are kept, attempts aside."""
        days: dict[Kept, int] = {
            # What was called for goes with what came of it.
            kept: getattr(self, f"{Kept.RESULTS if kept is Kept.STEPS else kept}_retention_days")
            for kept in Kept
        }
        return RetentionPolicy(days=days)

    @property
    def binds_loopback(self) -> bool:
        """Whether only this machine can reach the web process."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def require_guarded_bind(self) -> None:
        """Refuse to serve strangers by accident.

        Raises:
            SettingsInvalid: the bind is not loopback, and neither a key nor ALLOW_ANONYMOUS is set.
        """
        if self.binds_loopback or self.admin_api_key or self.allow_anonymous:
            return
        sentence = (
            f"HOST={self.host} can be reached from other machines, and no ADMIN_API_KEY is set."
            " Set ADMIN_API_KEY (clients then send it as a bearer token), or ALLOW_ANONYMOUS=1"
            " if something in front already guards it."
        )
        raise SettingsInvalid(sentence)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; arguments that are not None go before the environment.

    Raises:
        SettingsInvalid: a variable does not hold what it must; names it, never its value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in fault['loc']).upper() or 'settings'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        ]
        raise SettingsInvalid("; ".join(lines)) from None


def environment_with(settings: Settings) -> dict[str, str]:
    """Return an environment in which a child process reads these same settings."""
    own = {
        name.upper(): _as_variable(value)
        for name, value in settings.model_dump().items()
        if value is not None
    }
    return {**os.environ, **own}


def _as_variable(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)
