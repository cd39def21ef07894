"""The `zeroshot` command."""

import asyncio
import errno
import json
import secrets
import signal
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table

import zeroshot
from zeroshot.address import check_address, listen, url_of
from zeroshot.console import announce, console, drop_output, fail, progress_bars
from zeroshot.errors import InvalidRequest, SettingsError, ZeroshotError
from zeroshot.interrupt import ctrl_c_ends_at_once
from zeroshot.model.hub import fetch_model
from zeroshot.settings import Settings, load_settings
from zeroshot.telemetry import logs
from zeroshot.types import MAX_SEED, SamplingParams

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="GPT-2, with prompt templates as typed endpoints.",
)

ModelOption = Annotated[
    str, typer.Option(envvar="ZEROSHOT_MODEL", help="A folder, a name in model_weights/, or a Hugging Face hub name.")
]
PromptsOption = Annotated[Path | None, typer.Option(envvar="ZEROSHOT_PROMPTS", help="Folder of prompt files.")]
DTypeOption = Annotated[str, typer.Option(envvar="ZEROSHOT_DTYPE", help="auto, fp32, bf16, fp16 or int8.")]
DeviceOption = Annotated[str, typer.Option(envvar="ZEROSHOT_DEVICE", help="auto, cpu or cuda.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads of the engine. Default: ZEROSHOT_NUM_THREADS, or all CPUs it may use."),
]


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(f"zeroshot {zeroshot.__version__}")
        raise typer.Exit


@app.command(epilog="Example: zeroshot serve --model gpt2 --port 8080")
def serve(
    model: ModelOption = "demo",
    host: Annotated[str, typer.Option(envvar="ZEROSHOT_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="ZEROSHOT_PORT", help="Port to listen on.")] = 8000,
    prompts: PromptsOption = None,
    dtype: DTypeOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    max_num_seqs: Annotated[
        int | None, typer.Option(help="Sequences that run at once; others wait. Default: ZEROSHOT_MAX_NUM_SEQS, or 64.")
    ] = None,
    kv_dtype: Annotated[
        str,
        typer.Option(envvar="ZEROSHOT_KV_DTYPE", help="Keys and values: auto; fp32 or fp16 on a CPU; fp8 on a GPU."),
    ] = "auto",
    speculative_model: Annotated[
        str | None,
        typer.Option(
            envvar="ZEROSHOT_SPECULATIVE_MODEL",
            help="A smaller model that guesses what comes next while one stream runs.",
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help="A key that callers must send, except for /health/live, /health/ready and the page. May be repeated."
        ),
    ] = None,
    log_format: Annotated[str, typer.Option(envvar="ZEROSHOT_LOG_FORMAT", help="text or json.")] = "text",
    log_level: Annotated[
        str, typer.Option(envvar="ZEROSHOT_LOG_LEVEL", help="debug, info, warning or error.")
    ] = "info",
    log_prompts: Annotated[
        bool,
        typer.Option(
            "--log-prompts", envvar="ZEROSHOT_LOG_PROMPTS", help="Write prompts into the log; they may be confidential."
        ),
    ] = False,
) -> None:
    """Serve a model and the tasks in the prompts folder over HTTP.

    Every setting also has an environment variable, ZEROSHOT_<NAME>; see docs/settings.md.
    """
    # Until the server has handlers of its own, also while a checkpoint is fetched: the first process of a container
    # gets only the signals that it handles.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = _settings(
        model=model,
        host=host,
        port=port,
        prompts=prompts,
        dtype=dtype,
        device=device,
        num_threads=threads,
        max_num_seqs=max_num_seqs,
        kv_dtype=kv_dtype,
        speculative_model=speculative_model,
        api_keys=_with_environment(api_key),
        log_format=log_format,
        log_level=log_level,
        log_prompts=log_prompts,
    )
    logs.configure(settings.log_format, settings.log_level, "server")
    from zeroshot.engine.supervisor import start_process

    engine = start_process()  # it imports torch meanwhile
    with ExitStack() as unless_it_can_serve:
        unless_it_can_serve.callback(engine.kill)  # by itself it would end once it has imported torch
        from zeroshot.app import create_app
        from zeroshot.client import EngineClient
        from zeroshot.serving import serve as run_server

        check_address(settings.host, settings.port)
        folder = _fetch_models(settings)
        application = create_app(settings, EngineClient(settings, folder, engine))
        listeners = listen(settings.host, settings.port)
        unless_it_can_serve.pop_all()
    port = listeners[0].getsockname()[1]  # the one that was picked for port 0
    announce(settings.log_format, folder.name, url_of(settings.host, port))
    raise typer.Exit(run_server(application, settings, listeners))


@app.command(
    epilog="Examples:\n\nzeroshot deploy --model gpt2 --num-gpus 1 --max-replicas 8\n\n"
    "zeroshot deploy --address 10.0.0.1:6379 --host 0.0.0.0 --min-replicas 2 --num-cpus 4 --set dtype=int8"
)
def deploy(
    model: ModelOption = "demo",
    prompts: PromptsOption = None,
    address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="Address of the cluster; auto: the one that this machine is in.")
    ] = "auto",
    name: Annotated[
        str, typer.Option(help="Name of the application; one that is there already is updated.")
    ] = "zeroshot",
    host: Annotated[str, typer.Option(envvar="ZEROSHOT_HOST", help="Address the proxies listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="ZEROSHOT_PORT", help="Port the proxies listen on.")] = 8000,
    min_replicas: Annotated[int, typer.Option(min=1, help="Engines, at least.")] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="Engines, at most; their number follows the requests.")] = 1,
    target_ongoing_requests: Annotated[float, typer.Option(help="Requests per engine; more add engines.")] = 32,
    num_cpus: Annotated[float, typer.Option(min=0, help="CPU cores of each engine.")] = 1,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each engine.")] = 0,
    ingress_replicas: Annotated[int, typer.Option(min=1, help="HTTP front ends, a CPU core each.")] = 1,
    max_surge_percent: Annotated[
        int, typer.Option(min=0, max=100, help="Percent of the engines that an update adds before it removes old ones.")
    ] = 25,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting of docs/settings.md, as name=value. May be repeated."),
    ] = None,
) -> None:
    """Serve on many machines: deploy the same server to a running Ray cluster, or update it there (docs/cluster.md).

    Returns when every replica is ready. An update of the model or the prompts fails no request.
    """
    try:
        from zeroshot.cluster.run import deploy as deploy_on_ray
        from zeroshot.cluster.run import parse_settings
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{error}. `zeroshot deploy` needs Ray; in a checkout: pip install -c constraints.txt -e '.[cluster]'"
        ) from None

    arguments: dict[str, Any] = {
        "model": model,
        "min_replicas": min_replicas,
        "max_replicas": max_replicas,
        "target_ongoing_requests": target_ongoing_requests,
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "ingress_replicas": ingress_replicas,
        "max_surge_percent": max_surge_percent,
        **({} if prompts is None else {"prompts": prompts}),
        **parse_settings(setting or []),
    }
    deploy_on_ray(arguments, address=address, name=name, host=host, port=port)
    console.print(escape(f"{name} serves {model} on {url_of(host, port)}"), highlight=False)


@app.command(epilog="Example: zeroshot download gpt2-medium")
def download(name: Annotated[str, typer.Argument(help="gpt2, gpt2-xl, distilgpt2, or any GPT-2 on the hub.")]) -> None:
    """Fetch a checkpoint from the Hugging Face hub into model_weights/. Resumes an interrupted download."""
    settings = _settings()
    folder = fetch_model(name, settings.weights_dir)
    console.print(escape(f"{name} is in {folder}. Serve it: zeroshot serve --model {name}"))


@app.command(epilog="Example: zeroshot generate 'It was a dark night, and' --max-tokens 40")
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue.")],
    model: ModelOption = "demo",
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate, at most.")] = 64,
    temperature: Annotated[float, typer.Option(min=0.0, max=100.0, help="0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="0 is off.")] = 40,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same text. Default: a random one.")
    ] = None,
    dtype: DTypeOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Continue a text in the terminal, without a server."""
    _check_utf8(prompt)
    settings = _settings(model=model, dtype=dtype, device=device)
    folder = _fetch_models(settings)
    with ctrl_c_ends_at_once():  # torch's import takes a second, and would not take a KeyboardInterrupt well
        from zeroshot.engine.offline import continue_text

    params = SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=secrets.randbelow(MAX_SEED) if seed is None else seed,
    )
    for piece in continue_text(settings.engine_settings(folder), prompt, params):
        typer.echo(piece, nl=False)
    typer.echo()


@app.command(
    epilog="Examples:\n\nzeroshot task translate text='I am hungry.'\n\n"
    "zeroshot task sentiment --input reviews.jsonl --output labels.jsonl"
)
def task(
    name: Annotated[str, typer.Argument(help="The task's name, as in its prompt file.")],
    inputs: Annotated[list[str] | None, typer.Argument(help="Inputs as name=value.", show_default=False)] = None,
    source: Annotated[
        Path | None, typer.Option("--input", exists=True, dir_okay=False, help="JSONL: one object of inputs a line.")
    ] = None,
    target: Annotated[Path | None, typer.Option("--output", help="JSONL: one result a line, in order.")] = None,
    model: ModelOption = "demo",
    prompts: PromptsOption = None,
    dtype: DTypeOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Run a task without a server: on one set of inputs, or on each line of a file.

    An interrupted run over a file goes on where it stopped. A line that fails becomes an error in its place.
    """
    from zeroshot.tasks.offline import run_file, run_once

    settings = _settings(model=model, prompts=prompts, dtype=dtype, device=device)
    if (source is None) != (target is None):
        raise InvalidRequest("--input and --output go together.")
    if source is not None and inputs:
        raise InvalidRequest("With --input the inputs are in the file: leave out name=value.")
    for pair in inputs or []:
        _check_utf8(pair)
    folder = _fetch_models(settings)
    if source is None or target is None:
        result = asyncio.run(run_once(settings, folder, name, inputs or []))
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
        raise typer.Exit(int("error" in result))
    with progress_bars() as progress:
        update = partial(progress.update, progress.add_task(name, total=None))
        work = run_file(
            settings, folder, name, source, target, on_done=lambda done, total: update(completed=done, total=total)
        )
        num_errors = asyncio.run(work)
    errors = f"; lines that are errors: {num_errors}" if num_errors else ""
    console.print(escape(f"{target}: done{errors}"))


@app.command(epilog="Example: zeroshot selfcheck --model gpt2")
def selfcheck(model: ModelOption = "demo") -> None:
    """Compare the served model's logits with Hugging Face's on the same checkpoint. Exit code 1 if they differ."""
    with ctrl_c_ends_at_once():
        from zeroshot.engine.selfcheck import TOLERANCE, compare_with_hugging_face

    folder = _fetch_models(_settings(model=model))
    table = Table("prompt", "prefill", "tokens", "same first choice", "worst difference", title=f"{folder.name}, fp32")
    worst = 0.0
    for row in compare_with_hugging_face(folder):
        worst = max(worst, row.worst)
        same = f"{row.num_same_choice}/{row.num_tokens}"
        table.add_row(row.prompt.split("\n")[0], row.prefill, str(row.num_tokens), same, f"{row.worst:.1e}")
    Console().print(table)
    verdict = "equal within" if worst <= TOLERANCE else "MORE than"
    typer.echo(f"Worst difference of a logit from Hugging Face: {worst:.1e} ({verdict} {TOLERANCE:.0e})")
    raise typer.Exit(int(worst > TOLERANCE))


@app.command(
    "eval", epilog="Example: zeroshot eval --data eval-data --datasets lambada,winograd --limit 200 --output results"
)
def evaluate(
    data: Annotated[Path | None, typer.Option(help="Folder with the files that --list names.")] = None,
    datasets: Annotated[str | None, typer.Option(help="Names, with commas between them. Default: all.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Print what there is, and the files it wants.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Examples of each data set, at most, drawn by --seed. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the examples of --limit, and what is sampled.")] = 0,
    stride: Annotated[int | None, typer.Option(min=1, help="Tokens a window moves. Default: half the context.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for results.json, results.md and results.png.")] = None,
    url: Annotated[str | None, typer.Option(help="A running server, instead of --model.")] = None,
    model: ModelOption = "demo",
    prompts: PromptsOption = None,
    dtype: DTypeOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Measure the GPT-2 paper's zero-shot tables from local files: paper and measured, side by side."""
    from zeroshot.evaluation import output as files
    from zeroshot.evaluation import tables
    from zeroshot.evaluation.datasets import ALL
    from zeroshot.evaluation.runner import Options, check, evaluate_in_process, evaluate_over_http

    if list_only:
        Console().print(tables.listing(ALL))
        raise typer.Exit
    if data is None:
        raise InvalidRequest("--data names the folder with the data files; --list says which they are.")
    names = [name.strip() for name in (datasets or "").split(",") if name.strip()]
    options = Options(data, names, limit, seed, stride)
    check(options)
    if output is not None:
        files.check(output)
    with progress_bars() as progress:
        bars: dict[str, TaskID] = {}

        def on_progress(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=None)
            progress.update(bars[name], completed=done, total=total)

        if url is not None:
            work = evaluate_over_http(url, options, on_progress)
        else:
            settings = _settings(model=model, prompts=prompts, dtype=dtype, device=device, num_threads=threads)
            work = evaluate_in_process(settings, _fetch_models(settings), options, on_progress)
        report = asyncio.run(work)
    Console().print(tables.results(report))
    for note in tables.notes(report):
        typer.echo(f"* {note}")
    for path in files.write(report, output) if output is not None else []:
        console.print(escape(str(path)), highlight=False)
    if not report.is_success:
        raise typer.Exit(1)


def main() -> None:
    """An error of ours is one readable line, not a traceback, and so is a disk that is full."""
    try:
        app()
    except KeyboardInterrupt:  # typer ends a command so, but not while it makes one
        sys.exit(128 + signal.SIGINT)
    except ZeroshotError as error:
        fail(error.message)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        drop_output()
        fail(f"There is no room for what this command writes: {error.strerror}.")


def _check_utf8(argument: str) -> None:
    """Raises InvalidRequest where Python has put surrogates in the place of bytes that are no text."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{argument[: error.end]!a}: this is not UTF-8.") from None


def _settings(**given: Any) -> Settings:
    """Flags that were given win over the environment."""
    return load_settings(**{name: value for name, value in given.items() if value is not None})


def _with_environment(api_keys: list[str] | None) -> list[str] | None:
    """A key given as a flag must not shut out those who have one from the environment."""
    if not api_keys:
        return None
    return [*(key.get_secret_value() for key in load_settings().api_keys), *api_keys]


def _fetch_models(settings: Settings) -> Path:
    """The model's folder. A draft model is fetched too, if there is one: the engine process looks for it there."""
    if settings.speculative_model is not None:
        fetch_model(settings.speculative_model, settings.weights_dir)
    return fetch_model(settings.model, settings.weights_dir)
