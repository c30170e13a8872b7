"""Libraries for vector indexes side by side, for ``index.py engines``: one thread, one question at
a time, 100 candidates, of which the best by exact score is the answer.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from index_population import Points, Population

from fpkit.gallery import gallery_centre
from fpkit.vector_index import Lists, VectorIndex, arrange

WANTED = 100
NEW = 1000  # directions added to the finished index

Search = Callable[[Points], Any]


@dataclass
class Engine:
    """An index that was built: how it searches at several efforts, grows, and is written."""

    searches: list[tuple[str, Search]]
    add: Callable[[Points], Any]
    write: Callable[[Path], Any]


def lists(rows: Points) -> Iterator[Engine]:
    """fpkit's: lists of faiss, float16."""
    from fpkit import vector_index

    arranged: Lists = arrange(lambda at: rows[at], np.arange(len(rows)))
    searches = []
    for probes in (16, 32, 64):
        vector_index.PROBES = probes
        index = VectorIndex(arranged, lambda at: rows[at])
        searches.append((f"{probes} lists", lambda q, i=index: i.search(q[None], WANTED)[0]))
    yield Engine(searches, lambda new: index.put(np.arange(len(new)) + len(rows), new),
                 lambda path: arranged.save(path / "index"))  # fmt: skip


def faiss_hnsw(rows: Points) -> Iterator[Engine]:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWSQ(
        rows.shape[1], faiss.ScalarQuantizer.QT_fp16, 16, faiss.METRIC_INNER_PRODUCT
    )
    index.hnsw.efConstruction = 100
    index.train(rows[:1000])
    index.add(rows)

    def search(effort: int) -> Search:
        def run(query: Points) -> Any:
            index.hnsw.efSearch = effort
            return index.search(query[None], WANTED)[1][0]

        return run

    yield Engine([(f"ef {e}", search(e)) for e in (32, 64, 128)], index.add,
                 lambda path: faiss.write_index(index, str(path / "index")))  # fmt: skip


def usearch(rows: Points) -> Iterator[Engine]:
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=100)
    index.add(np.arange(len(rows)), rows, threads=1)

    def search(effort: int) -> Search:
        def run(query: Points) -> Any:
            index.expansion_search = effort
            return index.search(query, WANTED).keys.astype(np.int64)

        return run

    yield Engine([(f"ef {e}", search(e)) for e in (64, 128)],
                 lambda new: index.add(np.arange(len(new)) + len(rows), new, threads=1),
                 lambda path: index.save(str(path / "index")))  # fmt: skip


def hnswlib(rows: Points) -> Iterator[Engine]:
    import hnswlib as library

    index = library.Index("ip", rows.shape[1])
    index.init_index(len(rows) + NEW, M=16, ef_construction=100)
    index.add_items(rows, num_threads=1)

    def search(effort: int) -> Search:
        def run(query: Points) -> Any:
            index.set_ef(effort)
            return index.knn_query(query[None], WANTED, num_threads=1)[0][0].astype(np.int64)

        return run

    yield Engine([(f"ef {e}", search(e)) for e in (100, 128)],
                 lambda new: index.add_items(new, num_threads=1),
                 lambda path: index.save_index(str(path / "index")))  # fmt: skip


def lancedb(rows: Points) -> Iterator[Engine]:
    import lancedb as library
    import pyarrow as pa

    def table(new: Points, start: int) -> pa.Table:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(new.ravel()), new.shape[1])
        return pa.table({"id": np.arange(len(new)) + start, "vector": vectors})

    with tempfile.TemporaryDirectory() as folder:
        made = library.connect(folder).create_table("t", table(rows, 0))
        made.create_index(
            metric="dot", index_type="IVF_FLAT", num_partitions=int(2 * len(rows) ** 0.5)
        )

        def search(probes: int) -> Search:
            def run(query: Points) -> Any:
                asked = made.search(query).distance_type("dot").nprobes(probes).limit(WANTED)
                return asked.select(["id", "_distance"]).to_arrow()["id"].to_numpy()

            return run

        def add(new: Points) -> None:
            made.add(table(new, len(rows)))
            made.optimize()

        def write(path: Path) -> None:  # it has been written as it was made
            for file in Path(folder).rglob("*"):
                if file.is_file():
                    shutil.copy(file, path / f"{len(list(path.iterdir()))}")

        yield Engine([(f"{p} lists", search(p)) for p in (16, 32)], add, write)


ENGINES = {"fpkit (faiss lists)": lists, "faiss HNSW": faiss_hnsw, "usearch": usearch,
           "hnswlib": hnswlib, "LanceDB": lancedb}  # fmt: skip


def compare(population: Population, models: int, questions: int) -> None:
    """Print one row for every library and effort."""
    middles, kin = population.models(models)
    means, _ = population.enrolments(middles, kin)
    centre = gallery_centre(means)
    rows = unit(means - centre)
    queries = unit(next(population.images(middles[:questions], kin[:questions], 1)) - centre)
    best = np.concatenate([(part @ rows.T).max(axis=1) for part in np.array_split(queries, 50)])
    columns = ["library", "effort", "p50 ms", "p99 ms", "recall@1", "build s"]
    print_row([*columns, "disk MB", f"add {NEW} s"])
    print_row(["---", "---", *["--:"] * 6])
    times = [1e3 * clocked(lambda q=query: (rows @ q).argmax())[0] for query in queries[:100]]
    middle, worst = (f"{np.quantile(times, share):.2f}" for share in (0.5, 0.99))
    exact = ["all scores, float32", "", middle, worst, "1", "", f"{rows.nbytes / 1e6:.0f}", ""]
    print_row(exact)
    for name, build in ENGINES.items():
        try:
            made = build(rows)
            seconds, engine = clocked(lambda m=made: next(m))
        except ImportError:
            print_row([name, "not installed", *[""] * 6])
            continue
        with tempfile.TemporaryDirectory() as folder:
            engine.write(Path(folder))
            disk = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
        found = [(effort, asked(search, queries, rows, best)) for effort, search in engine.searches]
        adding = clocked(lambda e=engine: e.add(rows[:NEW] * np.float32(0.999)))[0]
        of_all = f"{seconds:.1f}", f"{disk:.0f}", f"{adding:.3f}"
        for effort, (p50, p99, recall) in found:
            print_row([name, effort, f"{p50:.2f}", f"{p99:.2f}", f"{recall:.4f}", *of_all])
        del engine
        made.close()


def print_row(cells: list[str]) -> None:
    print("|", " | ".join(cells), "|", flush=True)


def asked(search: Search, queries: Points, rows: Points, best: Points) -> tuple[float, ...]:
    """Milliseconds (median, 99th percentile) and the share of queries whose best was found."""
    times, hits = [], []
    for query, most in zip(queries, best, strict=True):
        seconds, places = clocked(lambda q=query: search(q))
        places = places[places >= 0]
        times.append(seconds * 1e3)
        hits.append((rows[places] @ query).max() >= most - 1e-6)
    return float(np.median(times)), float(np.quantile(times, 0.99)), float(np.mean(hits))


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it returns."""
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def unit(rows: Points) -> Points:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
