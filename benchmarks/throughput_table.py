"""The numbers of benchmarks/throughput.py as a page."""


def table(results):
    """Markdown of all that was measured."""
    corpus, models = results["corpus"], results["models"]
    lines = [
        "# Throughput",
        "",
        "Written by `benchmarks/throughput.py`; every speed is hours of speech an "
        "hour. With one thread the clock is CPU time; with more, and on CUDA, the "
        "wall's.",
        "",
        f"{results['cpu']}, {results['cores']} cores"
        + (f"; {results['cuda']}" if "cuda" in results else "")
        + f"; torch {results['torch']}; load at the start {results['load']:.1f}; "
        f"{results['cpu_seconds'] / 60:.0f} CPU minutes in all.",
        "",
        "| once for a corpus, one thread | speed |",
        "|---|---|",
        f"| preparation: decode, check, manifest ({corpus['files']} files, "
        f"{corpus['hours']:.2f} h) | {corpus['prepare_speed']:,.0f} |",
        f"| features: decode, log-Mel, cache | {corpus['features_speed']:,.0f} |",
        "",
        "## Training",
        "",
        "| model | on | parameters | speed | step, ms | batch, s | waiting for data "
        "| GFLOP a step | matmul, GFLOP/s | step / floor | peak RSS, MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in models:
        memory = f"{row['peak_mb']:,.0f}"
        if "cuda_mb" in row:
            memory += f", CUDA {row['cuda_mb']:,.0f}"
        lines.append(
            f"| {row['model']}{_batches(row)} | {_where(row)} "
            f"| {row['parameters'] / 1e6:.2f} M "
            f"| {row['train_speed']:,.0f} | {1000 * row['step_seconds']:.0f} "
            f"| {row['batch_seconds']:.1f} | {100 * row['waiting']:.1f} % "
            f"| {row['gflop_per_step']:.1f} | {row['matmul_gflops']:,.0f} "
            f"| {row['step_over_floor']:.2f} | {memory} |"
        )
    lines += [
        "",
        "The floor is the FLOPs of all matrix products of a step, forward and "
        "backward, over the best rate of `torch.mm` on the shapes of the model.",
        "",
        "## Inference",
        "",
        "`encode_batch` of 16 utterances, `encode_file` one after the other; bf16 and "
        "int8 are the `precision` of `FeatureEncoder`.",
        "",
        "| model | on | batch | file | batch, bf16 | batch, int8 | file, int8 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['model']} | {_where(row)} | {_speed(row, 'fp32', 'batch')} "
        f"| {_speed(row, 'fp32', 'file')} | {_speed(row, 'bf16', 'batch')} "
        f"| {_speed(row, 'int8', 'batch')} | {_speed(row, 'int8', 'file')} |"
        for row in models
        if "fp32" in row
    ]
    if "streaming" in results:
        lines += _streaming(results["streaming"])
    return "\n".join(lines) + "\n"


def _where(row):
    if row["device"] != "cpu":
        return row["device"]
    return f"{row['threads']} thread{'s' * (row['threads'] > 1)}"


def _batches(row):
    times = row["batches"]
    return f", batches x {times}" if times > 1 else ""


def _speed(row, precision, what):
    return f"{row[precision][f'{what}_speed']:,.0f}" if precision in row else "-"


def _streaming(found):
    different = " and ".join(
        f"{value:.1e} ({name.replace('_', ' ')})"
        for name, value in found["largest_difference"].items()
    )
    short, long = found["ten_minutes"], found["long"]
    speed = found["hours"] * 3600 / long["seconds"]
    return [
        "",
        "## A long recording, `encode_file` of the VAE in pieces",
        "",
        f"Peak memory {long['peak_mb']:,.0f} MB for {found['hours']:g} hours and "
        f"{short['peak_mb']:,.0f} MB for ten minutes; speed {speed:,.0f}. Largest "
        f"difference from the features of one piece: {different}.",
    ]
