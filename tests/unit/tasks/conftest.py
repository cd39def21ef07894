"""A real engine in this process, behind the part of EngineClient's interface that tasks use."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from transformers import GPT2LMHeadModel

from zeroshot.admission import Admission
from zeroshot.api import errors
from zeroshot.api import tasks as tasks_api
from zeroshot.engine.engine import Engine
from zeroshot.errors import GENERATION_ERRORS
from zeroshot.model_client import Completion
from zeroshot.tasks import checks
from zeroshot.tasks.catalog import Catalog
from zeroshot.tasks.openapi import install_task_openapi
from zeroshot.tasks.task import Task
from zeroshot.telemetry.metrics import Metrics
from zeroshot.text.detokenizer import Detokenizer
from zeroshot.text.tokenizer import Tokenizer
from zeroshot.types import GenerateRequest, TokenOutput

DEMO = Path(__file__).parents[3] / "model_weights" / "demo"
PROMPTS = Path(__file__).parents[3] / "prompts"


class InProcessClient:
    """Whoever waits, steps the engine: concurrent callers share its batches, as in the server."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.max_model_len = engine.model.config.n_positions
        self.eos_token_id = engine.model.config.eos_token_id
        self.requests: list[GenerateRequest] = []
        self.metrics = Metrics("test")
        self.admission = Admission(max_seqs=512, max_tokens=2**18)
        self._outputs: dict[str, list[TokenOutput]] = {}

    def check_room(self, requests: Iterable[GenerateRequest]) -> None:
        self.admission.check(requests)

    async def complete(self, request: GenerateRequest) -> list[Completion]:
        self.engine.add_request(request)
        self.requests.append(request)
        outputs = self._outputs[request.request_id] = []
        while self.engine.is_active(request.request_id):
            await asyncio.sleep(0)  # let the others add theirs
            for output in self.engine.step():
                self._outputs[output.request_id].append(output)
        del self._outputs[request.request_id]
        params = request.sampling_params
        detokenizer = Detokenizer(self.tokenizer, params.stop)
        completion = Completion(0)
        for output in outputs:
            if output.error_code is not None:
                raise GENERATION_ERRORS[output.error_code](output.error_message)
            if detokenizer.stop is None:
                completion.text += detokenizer.feed(output.token_ids, is_last=output.finish_reason is not None)
                completion.token_ids += output.token_ids
            completion.prompt_logprobs += output.prompt_logprobs
            completion.num_cached_tokens = max(completion.num_cached_tokens, output.num_cached_tokens)
            completion.finish_reason = output.finish_reason
        if detokenizer.stop is not None:
            completion.finish_reason, completion.stop_reason = "stop", detokenizer.stop
        return [completion]


class Server:
    """The tasks' HTTP surface over one folder of prompt files."""

    def __init__(self, folder: Path, client: InProcessClient) -> None:
        self.catalog = Catalog(folder, tokenizer=client.tokenizer, max_model_len=client.max_model_len)
        self.app = FastAPI()
        self.app.state.client, self.app.state.catalog = client, self.catalog
        errors.install(self.app)
        self.app.include_router(tasks_api.router)
        install_task_openapi(self.app, self.catalog)

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield http

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """`body` as JSON, or what httpx's options say."""

        async def send() -> httpx.Response:
            async with self.http() as http:
                return await http.post(path, **(options or {"json": body}))

        return asyncio.run(send())

    def get(self, path: str) -> httpx.Response:
        async def send() -> httpx.Response:
            async with self.http() as http:
                return await http.get(path)

        return asyncio.run(send())


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(DEMO)


@pytest.fixture(scope="session")
def tiny(checkpoint: Callable[..., Any]) -> Any:
    return checkpoint(vocab_size=50257, n_positions=256, n_embd=64, n_layer=2, n_head=4, initializer_range=0.1)


@pytest.fixture(scope="session")
def hf(tiny: Any) -> GPT2LMHeadModel:
    model: GPT2LMHeadModel = tiny.model
    return model


@pytest.fixture(scope="session")
def in_process() -> type[InProcessClient]:
    return InProcessClient


@pytest.fixture
def client(tiny: Any, load_engine: Callable[..., Engine], tokenizer: Tokenizer) -> InProcessClient:
    """A fresh engine, so an empty prefix cache."""
    return InProcessClient(load_engine(tiny.folder, kv_cache_tokens=4096), tokenizer)


@pytest.fixture(scope="session")
def make_task() -> Callable[[str], Task]:
    """make_task(yaml text) -> the task of that prompt file."""

    def make(text: str) -> Task:
        content = text.encode()
        return Task(checks.parse("test.yaml", content)[0], checks.version_of(content))

    return make


@pytest.fixture
def run(client: InProcessClient) -> Callable[..., Any]:
    """run(task, **body) -> the result."""

    def run_task(task: Task, **body: Any) -> Any:
        return asyncio.run(task.run(client, task.request_model.model_validate(body)))  # type: ignore[arg-type]

    return run_task


@pytest.fixture
def serve(client: InProcessClient) -> Callable[[Path], Server]:
    return lambda folder: Server(folder, client)


@pytest.fixture
def bundled(serve: Callable[[Path], Server]) -> Server:
    """The prompt files of this repository, served."""
    return serve(PROMPTS)
