"""The fields of an Airflow connection of type ``quoine``, their meaning, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from airflow_provider_quoine.exchange.budget.rules import HIGHEST_LIMIT, LIMIT, WINDOW

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from pydantic_core import ErrorDetails

    from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint

#: api-reference, Introduction.
PRODUCTION_URL = "https://api.quoine.com"
#: Pusher's hosted service answers at this name for a cluster (Channels documentation, "Clusters").
HOSTED_PUSHER = "ws-{cluster}.pusher.com"
#: The explicit choice of no bound. An empty bound allows nothing.
UNLIMITED = "unlimited"
COUNT = "[0-9]{1,9}"
#: Plain digits: an amount is never a JSON number, which would be a float on its way.
BOUND_PATTERN = rf"^([0-9]+(\.[0-9]{{1,8}})?|{UNLIMITED})$"
COUNT_PATTERN = f"^({COUNT}|{UNLIMITED})$"
#: Under a bound that must be stated, with an example.
STATED = "A number such as {}, or unlimited. Nothing may be withdrawn when empty."

#: The first field of each group of the form, and the group's name.
SECTIONS = {
    "withdrawal_addresses": "Withdrawal policy",
    "pusher_key": "Market stream",
    "signing_scheme": "Requests",
    "withdrawal_link": "Links and documents",
}
DEFAULT_PORTS = {"https": 443, "http": 80}
#: What is wrong with a field, by pydantic's type of the error.
MUST = {
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "string_type": "must be text: write quotes around it",
    "value_error": "{error}",
} | dict.fromkeys(("float_type", "float_parsing"), "must be a number")
MUST |= dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number")
MUST |= dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false")
#: The form of a field whose pattern a person does not read.
FORMS = {
    "withdrawal_link": "must begin with http:// or https:// and have {id} in it",
    "pusher_cluster": "must be small letters, digits and hyphens",
}


class ConnectionExtras(BaseModel):
    """
    The named extra fields of a connection, in the order of the form, which Airflow's page makes of their titles,
    descriptions and bounds.

    An unknown name is refused: a misspelt ``pusher_keey`` would have no effect otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    withdrawal_addresses: str = Field(
        default="",
        title="Withdrawal addresses",
        description="Addresses that may be withdrawn to, separated by blanks, commas or new lines. "
        "None means none; * means any.",
        json_schema_extra={"format": "multiline"},
    )
    withdrawal_max: str | None = Field(
        default=None,
        title="Largest withdrawal (BTC)",
        description=f"A larger withdrawal is refused before anything is sent. {STATED.format('0.5')}",
        json_schema_extra={"pattern": BOUND_PATTERN},
    )
    withdrawal_min: str | None = Field(
        default=None,
        title="Smallest withdrawal (BTC)",
        description="A smaller withdrawal is refused before anything is sent. No bound when empty.",
        json_schema_extra={"pattern": BOUND_PATTERN},
    )
    withdrawal_max_24h: str | None = Field(
        default=None,
        title="Most in 24 hours (BTC)",
        description=f"Bitcoin that one key may withdraw in any 24 hours, over all DAGs. {STATED.format('2')}",
        json_schema_extra={"pattern": BOUND_PATTERN},
    )
    withdrawal_count_24h: str | None = Field(
        default=None,
        title="Withdrawals in 24 hours",
        description=f"Withdrawals that one key may make in any 24 hours, over all DAGs. {STATED.format('10')}",
        json_schema_extra={"pattern": COUNT_PATTERN},
    )
    withdrawal_max_day: str | None = Field(
        default=None,
        title="Most per day (BTC)",
        description=f"Bitcoin that one key may withdraw on a calendar day, over all DAGs. {STATED.format('2')}",
        json_schema_extra={"pattern": BOUND_PATTERN},
    )
    withdrawal_count_day: str | None = Field(
        default=None,
        title="Withdrawals per day",
        description=f"Withdrawals that one key may make on a calendar day, over all DAGs. {STATED.format('10')}",
        json_schema_extra={"pattern": COUNT_PATTERN},
    )
    withdrawal_timezone: str = Field(
        default="UTC",
        title="Time zone of the day",
        description="The calendar day of the caps begins at this zone's midnight. A name such as Asia/Tokyo.",
    )
    withdrawal_approvals: int | None = Field(
        default=None,
        ge=0,
        le=9,
        title="Approvals",
        description="How many people must approve each withdrawal on Airflow's page, none of them somebody who has "
        "started a run for it. None when empty.",
    )
    bitcoin_network: Literal["main", "test"] = Field(
        default="main",
        title="Bitcoin network",
        description="The network that withdrawal addresses must belong to.",
    )
    pusher_key: str | None = Field(
        default=None,
        title="Pusher key",
        description="Application key of the market streams; the exchange hands it out on contact.",
    )
    pusher_cluster: str = Field(
        default="mt1",
        pattern=r"^[a-z0-9-]+$",
        title="Pusher cluster",
        description="Cluster of Pusher's hosted service; without effect when a host is given.",
    )
    pusher_host: str | None = Field(
        default=None,
        title="Pusher host",
        description="Host name of the stream's server. Leave empty for Pusher's hosted service.",
    )
    pusher_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        title="Pusher port",
        description="Port of the stream's server; 443 with TLS and 80 without when empty.",
    )
    pusher_tls: bool = Field(
        default=True,
        title="Pusher TLS",
        description="Encrypt the stream. Off only for a sandbox on this machine.",
    )
    pusher_heartbeat: float = Field(
        default=30,
        ge=1,
        le=300,
        title="Stream heartbeat (s)",
        description="Seconds without a message after which the stream's server is asked whether it is there.",
    )
    pusher_patience: float = Field(
        default=60,
        ge=2,
        le=600,
        validate_default=True,
        title="Stream patience (s)",
        description="Seconds without a message after which the stream is connected anew. At least one second more than "
        "the heartbeat. A dead connection is noticed that late, and its gap is that long.",
    )
    pusher_max_message_mib: float = Field(
        default=1,
        ge=0.0625,
        le=64,
        title="Largest stream message (MiB)",
        description="A message above this size ends the stream's connection, which is then made again.",
    )

    signing_scheme: Literal["apiauth", "jwt"] = Field(
        default="apiauth",
        title="Signing scheme",
        description="How requests are signed: apiauth (the default) or jwt (X-Quoine-Auth).",
    )
    ca_path: str | None = Field(
        default=None,
        title="CA bundle",
        description="Path of a PEM file with the authorities to trust instead of the system's. "
        "TLS certificates are always verified.",
    )
    connect_timeout: float = Field(
        default=10,
        gt=0,
        le=300,
        title="Connect time-out (s)",
        description="Seconds to wait for a connection to the exchange.",
    )
    read_timeout: float = Field(
        default=30,
        gt=0,
        le=600,
        title="Read time-out (s)",
        description="Seconds to wait for the exchange's response once the request is sent.",
    )
    request_limit: int | None = Field(
        default=None,
        ge=1,
        le=HIGHEST_LIMIT,
        title="Request limit",
        description="Requests per window that all connections to this base URL make together. "
        f"When empty, Airflow's configuration says, by default {LIMIT}.",
    )
    request_window: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        title="Request window (s)",
        description="Length of the window that the request limit is for. "
        f"When empty, Airflow's configuration says, by default {WINDOW:g}.",
    )
    budget_redis_conn_id: str | None = Field(
        default=None,
        title="Budget's Redis",
        description="Connection of type redis where several hosts share the request budget. "
        "When empty, Airflow's configuration says, by default a file on this host.",
    )
    withdrawal_link: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s{}]+\{id\}[^\s{}]*$",
        title="Withdrawal page",
        description="Address of a withdrawal's page at the exchange with {id} in it, for the link on the task.",
    )
    max_document_mb: float = Field(
        default=10,
        gt=0,
        le=100,
        title="Largest document (MB)",
        description="An onboarding document above this size is refused before anything is sent.",
    )

    @field_validator("pusher_patience")
    @classmethod
    def _answer_needs_time(cls, patience: float, info: ValidationInfo) -> float:
        heartbeat = info.data.get("pusher_heartbeat", 0.0)
        if patience < heartbeat + 1:
            raise ValueError(f"must be at least 1 s more than the heartbeat, which is {heartbeat:g} s")
        return patience

    @classmethod
    def label_of(cls, name: str) -> str:
        """Return what a field is called in the form."""
        return str(cls.model_fields[name].title)


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """
    A checked connection.

    :param conn_id: its id, for messages.
    :param base_url: ``https://api.quoine.com`` or another server, without a trailing slash.
    :param api_id: the key's id; empty where another key is used.
    :param api_secret: the key's secret; never shown.
    :param extras: the named extra fields.
    """

    conn_id: str
    base_url: str
    api_id: str
    api_secret: str = field(repr=False)
    extras: ConnectionExtras

    @classmethod
    def from_connection(cls, connection: Connection) -> ConnectionSettings:
        """
        Read and check an Airflow connection.

        :raises QuoineInputError: naming the field that is wrong and never its value.
        """
        conn_id = connection.conn_id or "(unsaved connection)"
        return cls(
            conn_id=conn_id,
            base_url=_base_url(connection),
            api_id=(connection.login or "").strip(),
            api_secret=connection.password or "",
            extras=_extras(conn_id, connection.extra_dejson),
        )

    @property
    def pusher_endpoint(self) -> PusherEndpoint:
        """
        The endpoint of the market streams.

        :raises QuoineInputError: if the connection names no Pusher key.
        """
        from airflow_provider_quoine.exchange.errors import QuoineInputError
        from airflow_provider_quoine.exchange.stream.pusher import PusherEndpoint, StreamTiming

        extras = self.extras
        if not extras.pusher_key:
            raise QuoineInputError(
                f"Connection {self.conn_id!r} has no Pusher key, so its market streams cannot be opened. "
                "Put the key that the exchange gave you into the field 'Pusher key'."
            )
        return PusherEndpoint(
            key=extras.pusher_key,
            host=extras.pusher_host or HOSTED_PUSHER.format(cluster=extras.pusher_cluster),
            port=extras.pusher_port or (443 if extras.pusher_tls else 80),
            tls=extras.pusher_tls,
            ca_path=extras.ca_path,
            timing=StreamTiming(
                activity_timeout=extras.pusher_heartbeat,
                pong_timeout=extras.pusher_patience - extras.pusher_heartbeat,
            ),
            max_message=int(extras.pusher_max_message_mib * 2**20),
        )


def _base_url(connection: Connection) -> str:
    """
    Make one URL of host and port. The host may be a URL, a bare name, or empty for production.

    The port of the scheme is left out, and 0 means none: Airflow 3.3 tests only connections that have one
    (decisions, Connection test).
    """
    from airflow_provider_quoine.exchange.errors import QuoineInputError

    host = (connection.host or PRODUCTION_URL).strip().rstrip("/")
    url = host if "://" in host else f"https://{host}"
    _refuse_unclear_url(url, conn_id=connection.conn_id or "")
    parts = urlsplit(url)
    try:
        stated = parts.port
    except ValueError:
        # The client says what is wrong with it.
        return url
    if stated and connection.port and stated != connection.port:
        raise QuoineInputError(
            f"Connection {connection.conn_id!r} has port {stated} in its base URL and {connection.port} in the field "
            "'Port'. Nothing was sent. Write the same in both, or 0 into the field."
        )
    port = stated or connection.port
    name = parts.netloc.removesuffix(f":{stated}") if stated else parts.netloc.removesuffix(":")
    shown = f"{name}:{port}" if port and port != DEFAULT_PORTS.get(parts.scheme) else name
    return parts._replace(netloc=shown).geturl()


def _refuse_unclear_url(url: str, *, conn_id: str) -> None:
    """Refuse a base URL with parts that it does not need: payments are known by it, and it stands in messages."""
    from airflow_provider_quoine.exchange.errors import QuoineInputError

    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or parts.fragment or {".", ".."} & set(parts.path.split("/")):
        raise QuoineInputError(
            f"The base URL of connection {conn_id!r} may have a scheme, a host, a port and a path without . and .. in "
            "it, and nothing else. Nothing was sent. Put the key's id and secret into login and password."
        )


def _extras(conn_id: str, given: dict[str, Any]) -> ConnectionExtras:
    from airflow_provider_quoine.exchange.errors import QuoineInputError

    # The form sends null or "" for a field that was left empty.
    filled = {name: value for name, value in given.items() if value not in (None, "")}
    try:
        return ConnectionExtras.model_validate(filled)
    except ValidationError as error:
        problems = " ".join(_in_words(problem) for problem in error.errors())
        raise QuoineInputError(f"Connection {conn_id!r} has extra fields that are wrong. {problems}") from None


def _in_words(problem: ErrorDetails) -> str:
    """Say what is wrong with a field, with its name in the form and without its pattern or value."""
    name = str(problem["loc"][0])
    if name not in ConnectionExtras.model_fields:
        (meant, *_) = (*get_close_matches(name, ConnectionExtras.model_fields), "")
        known = f"did you mean {meant}?" if meant else f"the fields are: {', '.join(ConnectionExtras.model_fields)}."
        return f"There is no field {name}; {known}"
    said = MUST.get(problem["type"], "{msg}").format(msg=problem["msg"], **problem.get("ctx", {}))
    rule = FORMS.get(name) if problem["type"] == "string_pattern_mismatch" else None
    return f"{ConnectionExtras.label_of(name)!r} {rule or said}."


def connection_form() -> dict[str, Any]:
    """Return the fields of :class:`ConnectionExtras` as Airflow's ``conn-fields``: JSON schemas for its page."""
    schema = ConnectionExtras.model_json_schema()["properties"]
    form, section = {}, ""
    for name, properties in schema.items():
        section = SECTIONS.get(name, section)
        form[name] = _form_field(properties, section)
    return form


def _form_field(properties: dict[str, Any], section: str) -> dict[str, Any]:
    # pydantic writes an optional field as anyOf [T, null]; Airflow's form wants one schema with a list of types.
    main = properties["anyOf"][0] if "anyOf" in properties else properties
    optional = {"type": [main["type"], "null"]}
    hidden = {"title", "description", "anyOf", "type"}
    rules = {name: value for name, value in {**main, **properties}.items() if name not in hidden}
    return {
        "label": properties["title"],
        "description": properties["description"],
        "schema": {**optional, **rules, "section": section},
    }
