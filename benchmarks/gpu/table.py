"""The results as Markdown: what was reached, and its ratio to the roofline and to each peer of the same run."""

from typing import Any


def markdown(result: dict[str, Any]) -> str:
    lines = [f"# {result['card_name']}, {result['date']}", "", f"`{result['command']}`", ""]
    card = result.get("card", {})
    if card:
        lines += [
            f"Measured in this run: {card['read_bytes_per_s'] / 1e12:.2f} TB/s read, "
            f"{card['copy_bytes_per_s'] / 1e12:.2f} TB/s copy, {card['matrix_flop_per_s'] / 1e12:.0f} TFLOP/s bf16.",
            "",
        ]
    for part in (_decode, _prefill, _fused, _kv_fp8, _kernels, _http, _sections):
        lines += part(result)
    return "\n".join(lines) + "\n"


def _decode(result: dict[str, Any]) -> list[str]:
    peers = result.get("peers", {})
    names = list(dict.fromkeys(name for shape in peers.values() for name in shape))
    header = ["model", "at once", "tokens/s", "of roofline", *(f"x {name}" for name in names)]
    rows = []
    for shape, found in result.get("engine", {}).items():
        for batch, case in found["decode"].items():
            ratios = [_ratio(case, peers.get(shape, {}).get(name, {}).get(batch)) for name in names]
            share = f"{case['of_roofline']:.1%}" if "of_roofline" in case else ""
            rows.append([shape, batch, _rate(case), share, *ratios])
    return _table("Decode", header, rows)


def _prefill(result: dict[str, Any]) -> list[str]:
    rows = [
        [shape, _rate(found["prefill"]), _share(found["prefill"], "of_matrix_rate")]
        for shape, found in result.get("engine", {}).items()
        if "prefill" in found
    ]
    return _table("Prefill", ["model", "tokens/s", "of matrix rate"], rows)


def _fused(result: dict[str, Any]) -> list[str]:
    """Small batches: the engine by both paths, then the layers alone, then each kernel alone."""
    engines, layers = [], []
    for shape, found in result.get("fused", {}).items():
        for batch, paths in found["engine"].items():
            for name in [name for name in ("plain", "fused") if name in paths]:
                case = paths[name]
                times = _ratio(case, paths.get("plain")) if name == "fused" else ""
                engines.append([shape, batch, name, _rate(case), _share(case, "of_roofline"), times])
        for case, values in {**found["layers"], **found["kernels"]}.items():
            time = f"{values['us']:.1f}" if "us" in values else _why(values)
            layers.append([shape, case, time, _share(values, "of_read_bandwidth")])
    header = ["model", "at once", "path", "tokens/s", "of roofline", "x plain"]
    return [
        *_table("Small batches", header, engines),
        *_table(
            "Small batches: all layers, and a layer's kernels", ["model", "case", "us", "of read bandwidth"], layers
        ),
    ]


def _kv_fp8(result: dict[str, Any]) -> list[str]:
    rows = []
    for shape, batches in result.get("kv_fp8", {}).items():
        for batch, cases in batches.items():
            for name, case in cases.items():
                times = _ratio(case, cases.get("plain")) if name == "fp8" else ""
                rows.append([shape, batch, name, _rate(case), _share(case, "of_roofline"), times])
    header = ["model", "at once", "KV cache", "tokens/s", "of its roofline", "x plain"]
    return _table("FP8 KV cache", header, rows)


def _kernels(result: dict[str, Any]) -> list[str]:
    rows = [
        [name, f"{case['us']:.1f}" if "us" in case else _why(case), _share(case, "of_read_bandwidth"),
         _share(case, "of_matrix_rate") if case.get("of_matrix_rate") else ""]
        for name, case in result.get("kernels", {}).items()
    ]  # fmt: skip
    return _table("Kernels", ["case", "us", "of read bandwidth", "of matrix rate"], rows)


def _http(result: dict[str, Any]) -> list[str]:
    rows = [
        [name, str(case.get("requests", "")), _rate(case), _share(case, "of_engine")]
        for name, case in result.get("http", {}).items()
    ]
    return _table("HTTP", ["", "requests at once", "tokens/s", "of the engine"], rows)


def _sections(result: dict[str, Any]) -> list[str]:
    rows = [[name, f"{s['seconds']:.0f}", s["outcome"]] for name, s in result.get("sections", {}).items()]
    return _table("Sections", ["", "seconds", "outcome"], rows)


def _rate(case: dict[str, Any]) -> str:
    return f"{case['tokens_per_s']:,.0f}" if "tokens_per_s" in case else _why(case)


def _why(case: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in case.items())


def _share(case: dict[str, Any], name: str) -> str:
    return f"{case[name]:.1%}" if name in case else ""


def _ratio(ours: dict[str, Any], theirs: dict[str, Any] | None) -> str:
    if theirs is None or "tokens_per_s" not in theirs or "tokens_per_s" not in ours:
        return ""
    return f"{ours['tokens_per_s'] / theirs['tokens_per_s']:.1f}"


def _table(title: str, header: list[str], rows: list[list[str]]) -> list[str]:
    if not rows:
        return [f"## {title}", "", "not measured", ""]
    cells = [header, ["---"] * len(header), *rows]
    return [f"## {title}", "", *("| " + " | ".join(row) + " |" for row in cells), ""]
