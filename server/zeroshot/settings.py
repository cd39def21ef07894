"""Every setting, its default and its environment variable. The only reader of the environment.

`ZEROSHOT_<NAME>` sets any of them; `zeroshot serve --help` lists them as flags.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from zeroshot.errors import SettingsError

_REPOSITORY = Path(__file__).resolve().parents[2]

DType = Literal["auto", "fp32", "bf16", "fp16", "int8"]
Device = Literal["auto", "cpu", "cuda"]
CpuKernels = Literal["auto", "off"]
FusedDecode = Literal["auto", "on", "off"]
KVDType = Literal["auto", "fp32", "fp16", "fp8"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


def _beside_the_code(name: str) -> Path:
    """A folder of the repository when run from a checkout; otherwise one in the current directory."""
    folder = _REPOSITORY / name
    return folder if folder.is_dir() else Path(name)


def _comma_separated(value: Any) -> Any:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


class SharedSettings(BaseModel):
    """What both the server and its engine process know."""

    weights_dir: Path = Field(default_factory=lambda: _beside_the_code("model_weights"))
    dtype: DType = "auto"
    device: Device = "auto"
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads of the engine; default: all CPUs it may use."
    )
    cpu_kernels: CpuKernels = Field(default="auto", description="auto: C++ kernels, compiled here, where there is g++.")
    fused_decode: FusedDecode = Field(
        default="auto",
        description="GPU: decode by five kernels a layer. auto: up to 4 sequences of 124M and 2 of wider models, on "
        "Hopper and later; on: up to 8.",
    )
    kv_dtype: KVDType = Field(
        default="auto",
        description="auto: the model's, or a CPU's fp16 beside bf16, int8; fp32, fp16: CPU; fp8: half of bf16's, GPU.",
    )
    speculative_ngram: int | None = Field(
        default=None,
        ge=0,
        le=8,
        description="Guess what follows phrases of so many tokens that have stood in the text before. 0: don't. "
        "Default: 2 by the CPU's C++ kernels, else 0.",
    )
    speculative_model: str | None = Field(
        default=None, description="Guess a single stream's tokens with this smaller model, named as `model` is."
    )
    speculative_tokens: int = Field(default=4, ge=1, le=16, description="How many tokens it guesses for a step.")
    kv_cache_tokens: int | None = Field(default=None, ge=1, description="Size of the KV cache; default: by memory.")
    max_num_seqs: int = Field(default=64, ge=1, le=4096, description="Sequences that run at once.")
    max_num_batched_tokens: int | None = Field(default=None, ge=16, description="Tokens of a step; default: by device.")
    log_format: LogFormat = Field(default="text", description="json: one object a line, for a log collector.")
    log_level: LogLevel = "info"

    @model_validator(mode="after")
    def _every_sequence_fits_a_step(self) -> Self:
        if self.max_num_batched_tokens is not None and self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs")
        return self

    @model_validator(mode="after")
    def _one_guesses(self) -> Self:
        if self.speculative_ngram and self.speculative_model is not None:
            raise ValueError("speculative_ngram and speculative_model exclude each other: choose one of them")
        return self


class EngineSettings(SharedSettings):
    """What the engine process needs to know. Crosses the process boundary as JSON."""

    model_folder: Path = Path()
    kv_block_size: int | None = Field(default=None, ge=1, le=256, description="Default: 16 on a CPU, 64 on a GPU.")


class Settings(SharedSettings, BaseSettings):
    """The server's settings."""

    # By name too, for those that are given where the variable has another one.
    model_config = SettingsConfigDict(env_prefix="ZEROSHOT_", extra="ignore", populate_by_name=True)

    model: str = Field(default="demo", description="A folder, a name in model_weights/, or a Hugging Face hub name.")
    prompts: Path = Field(default_factory=lambda: _beside_the_code("prompts"))
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_queued_seqs: int = Field(default=512, ge=1, description="Sequences in the server at once; more get a 429.")
    max_queued_tokens: int = Field(
        default=2**18, ge=1, description="Tokens in the server at once: prompts + max_tokens."
    )
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    engine_hang_timeout_s: float = Field(default=30.0, gt=0, description="Silence after which the engine is restarted.")
    engine_start_timeout_s: float = Field(default=600.0, gt=0, description="Loading that takes longer is begun again.")
    drain_timeout_s: float = Field(default=30.0, ge=0, description="How long a stopping server lets requests finish.")
    receive_timeout_s: float = Field(default=30.0, gt=0, description="How long a request's head, or body, may take.")
    send_timeout_s: float = Field(default=60.0, gt=0, description="How long a client may leave an answer unread.")
    request_timeout_s: float = Field(default=600.0, gt=0, description="How long a request may take to be answered.")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_comma_separated)] = ()
    api_keys_file: Path | None = Field(default=None, description="More keys, one a line.")
    requests_per_minute: int | None = Field(default=None, ge=1, description="For each API key.")
    max_concurrent_requests: int | None = Field(default=None, ge=1, description="For each API key.")
    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=(), description="Web sites whose pages may use this server from a browser."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=(), description="Names beside localhost for a server without keys that only this machine reaches."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Send OpenTelemetry traces there. The variable's usual name: its SDK reads it too.",
    )
    log_prompts: bool = Field(default=False, description="Write prompts into the log. They may be confidential.")

    def engine_settings(self, model_folder: Path) -> EngineSettings:
        """What the engine process of this model is told."""
        shared = {name: getattr(self, name) for name in SharedSettings.model_fields}
        return EngineSettings(model_folder=model_folder, **shared)


def load_settings(**given: Any) -> Settings:
    """Settings from the environment and what is `given`, which wins. Raises SettingsError, naming the setting."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{first['loc'][0]}: " if first["loc"] else ""
        raise SettingsError(f"Setting {name}{first['msg'].removeprefix('Value error, ')}") from None


def engine_environment() -> dict[str, str]:
    """For the engine process: OpenMP's threads sleep while they wait instead of spinning, unless told otherwise here.

    A thread that spins keeps the core that the one it waits for needs. Where something else ran on the same two cores,
    a stream of GPT-2 124M got 1 to 31 tokens/s with OpenMP's default and 43 to 48 with this. The C++ kernels have
    threads of their own, with a patience of their own (`pool.h`).
    """
    environment = dict(os.environ)
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "1000")  # some microseconds
    return environment
