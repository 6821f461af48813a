"""Settings of the service: environment variables `BRAIN_*`. Replicas read the same ones from their environment."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from adapters.allow_list import AllowList
from serve_app import edge_rules
from serve_app.edge_rules import EdgeRules, Proxies
from storage.sealing import MasterKeys

DEFAULT_DATA = Path("~/.local/share/brain")


class Settings(BaseSettings):
    """Everything that can be set from outside. Secrets never show in a repr, a log or `brain settings`."""

    model_config = SettingsConfigDict(env_prefix="BRAIN_", extra="ignore", env_ignore_empty=True)

    data: Path = Field(DEFAULT_DATA, description="folder of everything that `brain up` keeps on this machine")
    host: str = Field("127.0.0.1", description="address that the API listens on")
    port: int = Field(8000, ge=1, le=65535, description="TCP port of the API")
    api_key: SecretStr | None = Field(None, description="the operator's API key; made and kept if not given")
    master_key: SecretStr | None = Field(
        None,
        description="32 random bytes in hexadecimal, which seal the secrets that the database keeps; to replace it, the"
        " new key, a comma and the old one; made and kept if not given",
    )
    master_key_file: Path | None = Field(None, description="file that holds BRAIN_MASTER_KEY instead")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL of the replicas, postgresql://user:password@host/database; else an embedded one"
    )
    database_admin_url: SecretStr | None = Field(
        None, description="PostgreSQL as the schema's owner, for migrations; BRAIN_DATABASE_URL if not given"
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis, redis://:password@host:6379/0; else an embedded server"
    )
    vectors_url: str | None = Field(
        None,
        description="where vectors are kept: a folder, lance:///PATH, qdrant://HOST:PORT, qdrants://HOST or"
        " pinecone://INDEX-HOST; a folder below BRAIN_DATA if not given",
    )
    vectors_key: SecretStr | None = Field(None, description="key of a hosted BRAIN_VECTORS_URL")
    cors_origins: str = Field(
        "", description="origins whose pages may ask from a browser, as https://app.example.com, with commas; none"
    )
    allowed_hosts: str = Field(
        "",
        description="names under which clients reach the API, as api.example.com or *.example.com, with commas; any if"
        " not given",
    )
    trusted_proxies: str = Field(
        edge_rules.LOOPBACK,
        description="addresses and networks of load balancers, which may say for whom they ask (x-forwarded-for)",
    )
    hsts_s: int = Field(
        0,
        ge=0,
        description="seconds for which browsers shall use HTTPS alone (HSTS), where TLS is in front; 0: not told",
    )
    body_wait_s: float = Field(30, gt=0, description="seconds that the body of a request may take to come")
    outgoing_allowed: str = Field(
        "",
        description="hosts, host:port or networks, with commas, that URLs set by tenants may lead to though they are"
        " private or not HTTPS: for development",
    )
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR")
    embedder_model: str = Field(
        "packaged", description="sentence-transformers model of the embedder; `packaged` needs no download"
    )
    embedder_precision: Literal["float32", "int8"] = Field(
        "float32",
        description="of the embedder's model; int8: on the CPU, two to four times quicker, with vectors of its own"
        " (`brain reindex`), for BERT models, needs the extra `int8`",
    )
    embedder_url: str | None = Field(
        None,
        pattern="^https?://",
        description="base URL, ending in /v1, of an OpenAI-compatible API that embeds instead, by BRAIN_EMBEDDER_MODEL",
    )
    embedder_key: SecretStr | None = Field(None, description="key of BRAIN_EMBEDDER_URL")
    embedder_dimensions: int | None = Field(
        None, ge=1, le=16_000, description="of the provider's vectors, where the model can be asked; else its own"
    )

    issuer: str | None = Field(
        None, description="`iss` of access tokens: the service's public URL, without a slash at its end"
    )
    audience: str = Field("brain", min_length=1, description="`aud` of access tokens: what they are good for")
    access_token_s: int = Field(900, ge=60, le=86_400, description="seconds that an access token counts")
    refresh_token_s: int = Field(
        30 * 86_400, ge=300, description="seconds that a sign-in can be prolonged by refresh tokens"
    )
    session_idle_s: int = Field(
        7 * 86_400, ge=300, description="seconds after which a sign-in ends that nobody has prolonged"
    )
    oidc_file: Path | None = Field(
        None, description="file (YAML or JSON) that names outside OpenID providers whose access tokens count"
    )

    database_connections: int = Field(
        10, ge=1, le=200, description="connections to PostgreSQL of each ingress and each host replica, at the most"
    )
    database_pooled: bool = Field(
        False,
        description="BRAIN_DATABASE_URL is a pooler in transaction mode: no session state is used",
    )
    admission_wait_s: float = Field(
        0.5,
        ge=0,
        description="seconds that a first text may wait for other turns until new ones are refused; 0: never",
    )
    host_lease_s: float = Field(3, gt=0, description="seconds of silence until a host's turns are taken over")
    host_idle_s: float = Field(300, gt=0, description="seconds until an idle conversation is put away")
    host_hot_mb: int = Field(512, gt=0, description="memory for hot conversations of one host replica, in MiB")
    recall: bool = Field(
        True, description="whether prompts tell a user's similar exchanges of other conversations, where they name him"
    )
    events_republish_s: int = Field(
        3600, ge=0, description="seconds of events that are published again to a Redis that lost its data"
    )
    events_kept: int = Field(
        10_000, ge=100, description="events that Redis keeps of each tenant, about; earlier ones come from PostgreSQL"
    )
    events_topic_kept: int = Field(100_000, ge=100, description="events that Redis keeps of each topic, about")
    context_messages: int = Field(100, ge=4, description="messages of a conversation in a prompt, at the most")

    bench_no_postgres_writes: bool = Field(
        False, description="for measuring what durability costs: turns are kept in memory only, and lost"
    )

    @field_validator("cors_origins", "allowed_hosts", "trusted_proxies", "outgoing_allowed")
    @classmethod
    def _readable(cls, value: str, info: ValidationInfo) -> str:
        parse: dict[str, Callable[[str], object]] = {
            "cors_origins": edge_rules.origins,
            "allowed_hosts": edge_rules.hosts,
            "trusted_proxies": edge_rules.networks,
            "outgoing_allowed": AllowList.parse,
        }
        parse[info.field_name or ""](value)
        return value

    def required(self, field: str) -> str:
        """The plain text of a secret that this process cannot do without; raises ValueError naming its variable."""
        value = getattr(self, field)
        if value is None:
            raise ValueError(f"{variable(field)} is not set in this replica's environment")
        return str(value.get_secret_value())

    @property
    def master_keys(self) -> MasterKeys:
        """Raises ValueError naming the variable where there are none, or they are none."""
        try:
            text = self.master_key_file.read_text() if self.master_key_file else self.required("master_key")
            return MasterKeys.parse(text)
        except (OSError, ValueError) as error:
            raise ValueError(f"{variable('master_key')}: {error}") from None

    @property
    def issuer_url(self) -> str:
        """`issuer`, or the address that the API listens on."""
        return (self.issuer or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def edge(self) -> EdgeRules:
        return EdgeRules(
            origins=edge_rules.origins(self.cors_origins),
            hosts=edge_rules.hosts(self.allowed_hosts),
            proxies=Proxies(edge_rules.networks(self.trusted_proxies)),
            hsts=self.hsts_s,
            body_wait=self.body_wait_s,
        )

    @property
    def outgoing(self) -> AllowList:
        """Where URLs that tenants set may lead, though it is no public address."""
        return AllowList.parse(self.outgoing_allowed)

    @property
    def data_folder(self) -> Path:
        """`data` with `~` resolved."""
        return self.data.expanduser()

    @property
    def admin_url(self) -> SecretStr | None:
        """The URL for migrations, if a server was given."""
        return self.database_admin_url or self.database_url


def variable(field: str) -> str:
    """The environment variable of a field of `Settings`."""
    return f"{Settings.model_config.get('env_prefix', '')}{field}".upper()
