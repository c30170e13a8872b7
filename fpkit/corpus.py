"""From many images to a folder of embeddings: in units, each a Parquet file, stopped at any time.

A plan lists every image once, in units of a fixed number, and never changes. A unit is done when
its file has its name, which it gets when it is whole; whatever kills a run costs the units that it
was at.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpkit.artefacts import shown
from fpkit.assets import open_atomic
from fpkit.corpus_plan import (
    PLAN,
    CorpusConfig,
    as_metadata,
    file_hash,
    stored_facts,
    write_plan,
)
from fpkit.corpus_unit import OnImages, embed_unit, schema
from fpkit.embedder import Embedder
from fpkit.locks import locked
from fpkit.shards import Item, RowReader, pyarrow_parquet
from fpkit.sources import read_item

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


class Corpus:
    """A folder of embeddings: its plan, what is done, and what is not.

    Attributes
    ----------
    folder : Path
    config : CorpusConfig
    plan_hash : str
        SHA-256 of the plan's file, which every finished unit names.
    counts : list of int
        Images of every unit.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a folder that has a plan.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is damaged.
        """
        self.folder = Path(folder)
        plan = self.folder / PLAN
        if not plan.is_file():
            raise FileNotFoundError(f"{folder} holds no embeddings: expected {plan}")
        try:
            self._plan: pq.ParquetFile = pyarrow_parquet().ParquetFile(plan, pre_buffer=False)
            stored = stored_facts(self._plan.schema_arrow.metadata)
            self.config = CorpusConfig(**stored | {"sources": tuple(stored["sources"])})
        except ModuleNotFoundError:
            raise
        except Exception as error:  # the library has many names for damage
            raise ValueError(f"{plan} is damaged: delete it and begin anew ({error})") from error
        groups = self._plan.metadata
        self.counts = [groups.row_group(k).num_rows for k in range(groups.num_row_groups)]
        self.plan_hash = file_hash(plan)

    @classmethod
    def plan(cls, folder: str | Path, config: CorpusConfig) -> Corpus:
        """List the sources and write the plan; or open the one that is there, if it is the same.

        Raises
        ------
        FileNotFoundError, ValueError
            As :func:`fpkit.sources.list_items`; ValueError also if there is a plan for something
            else, or nothing to embed.
        """
        folder = Path(folder)
        if not (folder / PLAN).is_file():
            write_plan(folder, config)
        corpus = cls(folder)
        for name in (field.name for field in fields(CorpusConfig)):
            there, wanted = getattr(corpus.config, name), getattr(config, name)
            if there != wanted:
                raise ValueError(
                    f"{folder} holds a run with {name} {shown(there)}, not {shown(wanted)}: go on "
                    "with what it was begun with, or take another folder"
                )
        return corpus

    @property
    def images(self) -> int:
        """How many are planned."""
        return sum(self.counts)

    def path(self, unit: int) -> Path:
        """The file of a unit, which is there when the unit is done."""
        return self.folder / f"part-{unit:06d}.parquet"

    def items(self, unit: int) -> list[Item]:
        """What to embed for a unit."""
        rows = self._plan.read_row_group(unit, use_threads=False).to_pylist()
        return [Item(**row) for row in rows]

    def read(self, place: int) -> bytes:
        """The file of the image at a place of the plan, from 0, as it is now.

        Raises
        ------
        ImageReadError, ValueError, OSError
            As :func:`fpkit.sources.read_item`.
        """
        ends = list(accumulate(self.counts))
        unit = bisect_right(ends, place)
        item = self.items(unit)[place - ends[unit] + self.counts[unit]]
        if item.kind != "row":
            return read_item(item)
        with RowReader() as rows:
            return rows.read(item)

    def write(self, unit: int, table: pa.Table) -> None:
        """Write what :func:`fpkit.corpus_unit.embed_unit` made of :meth:`items`.

        Raises
        ------
        ValueError
            If it has another number of rows.
        """
        if len(table) != self.counts[unit]:
            raise ValueError(
                f"unit {unit} has {self.counts[unit]} images, got a table of {len(table)} rows"
            )
        table = table.replace_schema_metadata(as_metadata(self._facts(unit)))
        with open_atomic(self.path(unit)) as file:
            pyarrow_parquet().write_table(
                table, file, compression="zstd", use_dictionary=["format", "error"]
            )

    def finished(self) -> dict[int, int]:
        """The units that are done, and how many of their images have an error.

        Raises
        ------
        ValueError
            If a file is damaged, or belongs to another plan.
        """
        return {u: self._errors(u) for u in range(len(self.counts)) if self.path(u).exists()}

    def _errors(self, unit: int) -> int:
        path = self.path(unit)
        try:
            with pyarrow_parquet().ParquetFile(path) as part:
                facts, metadata = stored_facts(part.schema_arrow.metadata), part.metadata
                names = part.schema_arrow.names
        except Exception as error:
            raise ValueError(f"{path} is damaged: delete it, and go on ({error})") from error
        if facts != self._facts(unit) or metadata.num_rows != self.counts[unit]:
            raise ValueError(
                f"{path} belongs to another plan than {self.folder / PLAN}: move it away, and go on"
            )
        # path comes first and has one leaf; error last: the leaves between do not matter
        last = metadata.num_columns - 1 if names[-1] == "error" else 0
        groups = (metadata.row_group(k) for k in range(metadata.num_row_groups))
        return sum(g.num_rows - g.column(last).statistics.null_count for g in groups)

    def _facts(self, unit: int) -> dict[str, Any]:
        return {
            "extractor_hash": self.config.extractor_hash,
            "precision": self.config.precision,
            "plan": self.plan_hash,
            "unit": unit,
        }


# ---- runs --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """How many ``images`` there are, how many of them have ``errors``, and how many are ``new``."""

    images: int
    errors: int
    new: int


def embed_corpus(
    corpus: Corpus,
    extractor: Embedder,
    *,
    workers: int | None = None,
    retry_errors: bool = False,
    on_images: OnImages | None = None,
) -> CorpusSummary:
    """Do all units that are not done, one after the other, in this process.

    Parameters
    ----------
    corpus
        The plan, see :meth:`Corpus.plan`.
    extractor
        That of the plan.
    workers
        Threads, see :func:`fpkit.corpus_unit.embed_unit`.
    retry_errors
        Do units with errors again: files that were out of reach, say.
    on_images
        See :func:`fpkit.corpus_unit.embed_unit`.

    Raises
    ------
    BlockingIOError
        If another process is at it.
    ValueError
        If the extractor is another than the plan's, or a source has changed.
    OSError
        If a file cannot be written, or the machine cannot read.
    """
    if extractor.hash != corpus.config.extractor_hash:
        raise ValueError(
            f"{corpus.folder} is planned for the extractor {corpus.config.extractor_hash[:12]}, "
            f"got {extractor.hash[:12]}"
        )
    precision, new = corpus.config.precision, 0
    with locked(corpus.folder, wait=0), RowReader() as rows:
        errors = corpus.finished()
        for unit in pending(corpus, errors, retry_errors=retry_errors):
            table = embed_unit(
                corpus.items(unit),
                extractor,
                precision=precision,
                workers=workers,
                rows=rows,
                on_images=on_images,
            )
            corpus.write(unit, table)
            errors[unit] = len(table) - table["error"].null_count
            new += len(table)
    return CorpusSummary(images=corpus.images, errors=sum(errors.values()), new=new)


def pending(corpus: Corpus, finished: dict[int, int], *, retry_errors: bool = False) -> list[int]:
    """Units to do, in order, if ``corpus.finished()`` are done."""
    again = {unit for unit, errors in finished.items() if errors and retry_errors}
    return [u for u in range(len(corpus.counts)) if u not in finished or u in again]


def read_embeddings(path: str | Path, *, usable: bool = False, partial: bool = False) -> pa.Table:
    """Embeddings of images from disk.

    Parameters
    ----------
    path
        The folder of a run, or one of its files.
    usable
        Leave out what has an error.
    partial
        Take a run that is not at its end.

    Returns
    -------
    pyarrow.Table
        Columns as in :func:`fpkit.corpus_unit.schema`, in the order of the plan.
        :func:`fpkit.columns.from_arrow` makes an array of the column ``embedding``,
        :func:`extractor_hash` tells whose they are.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    ValueError
        If it is damaged, holds something else, or is not at its end.
    """
    path = Path(path)
    if path.is_dir():
        corpus = Corpus(path)
        done = corpus.finished()
        if len(done) < len(corpus.counts) and not partial:
            raise ValueError(
                f"{path} has {len(done)} of {len(corpus.counts)} units: let fpkit embed go on"
            )
        files = [corpus.path(unit) for unit in sorted(done)]
        empty = schema(corpus.config.dim).with_metadata(as_metadata(corpus._facts(-1)))
    elif path.is_file():
        files, empty = [path], None
    else:
        raise FileNotFoundError(f"{path}: no such folder or file of embeddings")
    import pyarrow as pa

    tables = [_read(file, usable=usable) for file in files]
    return pa.concat_tables(tables) if tables else empty.empty_table()


def extractor_hash(table: pa.Table) -> str:
    """Hash of the extractor that made a table of :func:`read_embeddings`."""
    found = stored_facts(table.schema.metadata)["extractor_hash"]
    return str(found)


def _read(file: Path, *, usable: bool) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = pyarrow_parquet().read_table(file)
        facts = stored_facts(table.schema.metadata)
        kind = table.schema.field("embedding").type
        if not pa.types.is_fixed_size_list(kind) or table.schema != schema(kind.list_size):
            raise ValueError(f"its columns are {shown(str(table.schema))}")
        whose = {"extractor_hash": str(facts["extractor_hash"]), "plan": str(facts["plan"])}
    except Exception as error:
        raise ValueError(f"{file} holds no embeddings, or is damaged ({error})") from error
    table = table.replace_schema_metadata(as_metadata(whose))
    return table.filter(pc.is_null(table["error"])) if usable else table
