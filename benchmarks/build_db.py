"""Speed of `build-db` on rows made from real ones, beside datasets + datasketch and datatrove.

    python benchmarks/build_db.py make --inputs DIR --rows 1000000 --out rows.parquet
    python benchmarks/build_db.py ours rows.parquet
    python benchmarks/build_db.py compare rows.parquet --peer-python PEERS/bin/python

`make` needs a folder of tables with prompts and negative prompts (any that ``files:`` reads);
without ``--inputs`` the miniature serves. `compare` runs ours, a script of `datasets.map` with
datasketch, and datatrove's MinHash pipeline one after the other on the same rows and prints rows a
second, the ratios, and how far the outputs agree. The peers live in a virtual environment of their
own: ``uv venv PEERS && uv pip install --python PEERS/bin/python datasketch "datatrove[processing]"
datasets ftfy orjson polars py3langid pyarrow pydantic spacy``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def real_pairs(inputs: Path | None) -> list[tuple[str, str]]:
    """Pairs of a folder of tables, or of the miniature."""
    from negbench.database.records import RawRecord
    from negbench.database.sources import open_source

    source = open_source(f"files:{inputs}" if inputs else "miniature")
    return sorted(
        {
            (item.prompt, item.negative)
            for item in source.read()
            if isinstance(item, RawRecord) and item.prompt and item.negative
        }
    )


def make(inputs: Path | None, rows: int, out: Path, *, seed: int = 0) -> None:
    """Rows like the real ones: lengths and tags of real prompts, universal negatives by Zipf.

    6 % of the rows repeat an earlier one, 12 % are near-duplicates of an earlier prompt, 2 % have
    no negative; the others recombine the tags of several real prompts with words of their own.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(seed)
    pairs = real_pairs(inputs)
    prompts = [prompt for prompt, _ in pairs]
    negatives = list(dict.fromkeys(negative for _, negative in pairs))
    tags = sorted({t.strip() for p in prompts for t in p.split(",") if 2 < len(t.strip()) < 60})
    words = sorted({w for p in prompts for w in p.split() if w.isalpha() and len(w) > 3})
    lengths = [max(1, p.count(",") + 1) for p in prompts]
    schema = pa.schema(
        [("id", pa.string()), ("prompt", pa.string()), ("negative_prompt", pa.string()),
         ("likes", pa.int64()), ("created_at", pa.string())]
    )  # fmt: skip
    memory: list[tuple[str, str]] = []
    with pq.ParquetWriter(out, schema) as writer:
        batch: list[tuple[str, str, str | None, int, str]] = []
        for number in range(rows):
            draw = rng.random()
            if memory and draw < 0.06:
                prompt, negative = rng.choice(memory)
            elif memory and draw < 0.18:
                prompt, negative = rng.choice(memory)
                parts = prompt.split(",")
                parts[rng.randrange(len(parts))] = f" {rng.choice(tags)}"
                prompt = ",".join(parts)
            else:
                count = min(60, rng.choice(lengths))
                chosen = [rng.choice(tags) for _ in range(count)]
                chosen.insert(0, " ".join(rng.choice(words) for _ in range(rng.randint(3, 9))))
                prompt = ", ".join(chosen)
                rank = int(rng.paretovariate(0.8)) - 1
                negative = negatives[rank % len(negatives)]
                if rng.random() < 0.4:
                    negative = f"{negative}, {rng.choice(tags)}"
            if len(memory) < 50_000:
                memory.append((prompt, negative))
            elif rng.random() < 0.05:
                memory[rng.randrange(len(memory))] = (prompt, negative)
            gone = None if rng.random() < 0.02 else negative
            year = rng.choice((2022, 2023, 2023, 2024))
            batch.append((f"row{number:08d}", prompt, gone, rng.randrange(50), f"{year}-05-01"))
            if len(batch) == 50_000 or number == rows - 1:
                columns = list(zip(*batch, strict=True))
                arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
                writer.write_table(pa.table(arrays, schema=schema))
                batch = []
    print(f"{rows} rows from {len(pairs)} real pairs in {out}")


def peak_memory(process: subprocess.Popen[bytes], found: list[float]) -> None:
    """Largest resident memory of a process and its children together, GiB."""
    while process.poll() is None:
        total = 0
        todo = [process.pid]
        while todo:
            pid = todo.pop()
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines()
                         if line.startswith("VmRSS"))  # fmt: skip
            todo += [int(child) for child in children]
        found[0] = max(found[0], total / 2**20)
        time.sleep(0.2)


def timed(command: list[str], **environment: str) -> dict[str, Any]:
    """Run a command; wall and CPU seconds, peak memory, and the JSON that it prints last."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    peak = [0.0]
    watcher = threading.Thread(target=peak_memory, args=(process, peak))
    watcher.start()
    assert process.stdout is not None
    output = process.stdout.read()
    code = process.wait()
    watcher.join()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"{command[1]} failed with exit code {code}")
    result = json.loads(output.decode().strip().splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_gib": round(peak[0], 2), **result}


OURS = """
import json, sys, time
from pathlib import Path
from negbench.database.build import build_db
from negbench.database.config import BuildConfig
marks, last = {}, [None, time.perf_counter()]
def told(stage, done, total):
    if stage != last[0]:
        now = time.perf_counter()
        if last[0]: marks[last[0]] = round(now - last[1], 2)
        last[:] = [stage, now]
config = BuildConfig(sources=(f"files:{sys.argv[1]}",), out=Path(sys.argv[2]), name="bench")
built = build_db(config, workers=int(sys.argv[3]), progress=told)
marks[last[0]] = round(time.perf_counter() - last[1], 2)
steps = {step["step"]: step for step in built.manifest["funnel"]}
print(json.dumps({"rows": steps["read"]["in"], "after_exact": steps["duplicates"]["out"],
                  "clusters": built.manifest["clusters"]["number"], "kept": built.manifest["rows"],
                  "stages": marks}))
"""

DATASKETCH = r"""
import hashlib, json, re, sys, unicodedata
import datasets
from datasketch import MinHash, MinHashLSH
from negbench.database.clean import clean_text
from negbench.database.language import language_of
words = re.compile(r"\w+")
def tokens(text):
    return words.findall(unicodedata.normalize("NFKC", text).lower())
def normal(text):
    return " ".join(tokens(text))
def shingles(text):
    t = tokens(text)
    return {" ".join(t[i:i + 3]) for i in range(len(t) - 2)} if len(t) >= 5 else set(t)
source, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = datasets.load_dataset("parquet", data_files=source, split="train",
                             cache_dir=out + "/cache")
total = len(data)
def clean(row):
    p, n = clean_text(row["prompt"] or ""), clean_text(row["negative_prompt"] or "")
    row["clean_prompt"], row["clean_negative"] = p.parsed.plain, n.parsed.plain
    row["prompt_tags"] = [{"tag": t.text, "weight": t.weight} for t in p.parsed.tags]
    row["negative_tags"] = [{"tag": t.text, "weight": t.weight} for t in n.parsed.tags]
    row["language"] = language_of(p.parsed.plain)
    return row
data = data.map(clean, num_proc=workers)
data = data.filter(lambda row: bool(normal(row["clean_prompt"]) and normal(row["clean_negative"])),
                   num_proc=workers)
seen, keep = set(), []
for i, (p, n) in enumerate(zip(data["clean_prompt"], data["clean_negative"])):
    key = hashlib.sha256((normal(p) + chr(31) + normal(n)).encode()).digest()
    if key not in seen:
        seen.add(key)
        keep.append(i)
data = data.select(keep)
def sign(row):
    m = MinHash(num_perm=256)
    m.update_batch([s.encode() for s in shingles(row["clean_prompt"])])
    return {"signature": m.hashvalues}
data = data.map(sign, num_proc=workers)
scheme = MinHash(num_perm=2).scheme
lsh = MinHashLSH(threshold=0.8, num_perm=256)
parent = list(range(len(data)))
def find(i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i
import numpy as np
for i, values in enumerate(data["signature"]):
    m = MinHash(num_perm=256, hashvalues=np.array(values, dtype=np.uint64), scheme=scheme)
    for j in lsh.query(m):
        a, b = find(i), find(j)
        if a != b:
            parent[max(a, b)] = min(a, b)
    lsh.insert(i, m, check_duplication=False)
roots = [find(i) for i in range(len(data))]
prompts = data["clean_prompt"]
split = []
for r in roots:
    x = int.from_bytes(hashlib.sha256(prompts[r].encode()).digest()[:8], "big") / 2**64
    split.append("train" if x < 0.8 else "validation" if x < 0.9 else "test")
data = data.remove_columns("signature").add_column("split", split)
data.to_parquet(out + "/out.parquet")
print(json.dumps({"rows": total, "after_exact": len(data), "clusters": len(set(roots))}))
"""


DATATROVE = r"""
import glob, json, os, re, sys
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (MinhashConfig, MinhashDedupBuckets,
    MinhashDedupCluster, MinhashDedupFilter)
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
source, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
table = pq.ParquetFile(source)
class Read(PipelineStep):
    name = "rows"
    def run(self, data=None, rank=0, world_size=1):
        for group in range(rank, table.num_row_groups, world_size):
            part = table.read_row_group(group, columns=["id", "prompt", "negative_prompt"])
            for row in part.to_pylist():
                if row["negative_prompt"]:
                    yield Document(text=row["prompt"], id=row["id"])
class Split:  # spaces only; the default tokenizer would be slower
    def word_tokenize(self, text):
        return text.split()
def signature():
    step = MinhashDedupSignature(output_folder=out + "/sig", config=config)
    step.word_tokenizer = Split()
    return step
config = MinhashConfig(n_grams=3, num_buckets=42, hashes_per_bucket=6,
                       hash_config=HashConfig(precision=64))
tasks = max(1, min(workers * 4, table.num_row_groups))
def go(steps, tasks, name):
    LocalPipelineExecutor(pipeline=steps, tasks=tasks, workers=min(workers, tasks),
                          logging_dir=out + "/log/" + name).run()
go([Read(), signature()], tasks, "1")
go([MinhashDedupBuckets(input_folder=out + "/sig", output_folder=out + "/buckets",
                        config=config)], 42, "2")
go([MinhashDedupCluster(input_folder=out + "/buckets", output_folder=out + "/remove",
                        config=config)], 1, "3")
go([Read(), MinhashDedupFilter(input_folder=out + "/remove"),
    JsonlWriter(output_folder=out + "/out")], tasks, "4")
import gzip
kept = sum(sum(1 for _ in gzip.open(p)) for p in glob.glob(out + "/out/*.gz"))
print(json.dumps({"rows": table.metadata.num_rows, "clusters": kept}))
"""


def run(which: str, rows: Path, workers: int, python: str) -> dict[str, Any]:
    """Run one of the three on `rows` in a folder of its own."""
    script = {"ours": OURS, "datasets+datasketch": DATASKETCH, "datatrove": DATATROVE}[which]
    with tempfile.TemporaryDirectory() as out:
        command = [python, "-c", script, str(rows.resolve()), f"{out}/db", str(workers)]
        Path(f"{out}/db").mkdir()
        result = timed(command)
    result["rows_per_second"] = round(result["rows"] / result["seconds"], 1)
    print(f"{which}: {json.dumps(result)}", flush=True)
    return result


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make")
    maker.add_argument("--inputs", type=Path)
    maker.add_argument("--rows", type=int, default=250_000)
    maker.add_argument("--out", type=Path, required=True)
    for name in ("ours", "compare"):
        runner = commands.add_parser(name)
        runner.add_argument("rows", type=Path)
        runner.add_argument("--workers", type=int, default=2)
        if name == "compare":
            runner.add_argument("--peer-python", required=True)
    arguments = parser.parse_args()
    if arguments.command == "make":
        make(arguments.inputs, arguments.rows, arguments.out)
        return
    ours = run("ours", arguments.rows, arguments.workers, sys.executable)
    if arguments.command == "ours":
        return
    for peer in ("datasets+datasketch", "datatrove"):
        theirs = run(peer, arguments.rows, arguments.workers, arguments.peer_python)
        ratio = ours["rows_per_second"] / theirs["rows_per_second"]
        print(f"ours / {peer}: {ratio:.2f} times the rows per second", flush=True)
        for key in ("after_exact", "clusters"):
            if key in theirs:
                print(f"  {key}: ours {ours[key]}, theirs {theirs[key]}", flush=True)


if __name__ == "__main__":
    main()
