"""Text vectorizers: CountVectorizer, TfidfVectorizer, TfidfTransformer."""

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Columns, Data, NotCompiled, as_validated, check_finite, filled
from serving.runtime.compiled.nodes import Transformer, compiles_transformer
from serving.runtime.compiled.sparse import Sparse, side_by_side

_BLANKS = re.compile(r"\s\s+")


@dataclass
class WordWeights(Transformer):
    """Counts → tf-idf. Source: sklearn.feature_extraction.text.TfidfTransformer.transform."""

    idf: npt.NDArray[np.floating[Any]] | None
    """Shape `(n_columns,)`."""
    is_sublinear: bool
    norm: str | None
    """`l1`, `l2`."""

    def transform(self, data: Data) -> Data:
        """Returns weighted counts."""
        if not isinstance(data, Sparse):
            matrix = as_validated(data)
            check_finite(matrix)
            data = side_by_side([matrix])
        values = data.values.astype(data.dtype if data.dtype in (np.float64, np.float32) else np.float64)
        if self.is_sublinear:
            np.log(values, values)
            values += 1.0
        if self.idf is not None:
            values *= self.idf[data.columns]
        if self.norm is not None:
            # Source: sklearn/utils/sparsefuncs_fast.pyx, inplace_csr_row_normalize_l1 and _l2.
            parts = np.abs(values) if self.norm == "l1" else values * values
            norms = data.row_sums(parts.astype(np.float64, copy=False))
            if self.norm == "l2":
                norms = np.sqrt(norms)
            norms[norms == 0] = 1
            np.divide(values, norms.repeat(np.diff(data.starts)), out=values, casting="same_kind")
        return data.with_values(values)


@dataclass
class WordCounts(Transformer):
    """Texts → counts of each term of the vocabulary."""

    terms: npt.NDArray[np.object_]
    """In the order of the columns."""
    analyzer: str
    """`word`, `char`, `char_wb`."""
    lowercase: bool
    accents: str | None
    """How accents are stripped: `ascii`, `unicode`."""
    token_pattern: str | None
    stop_words: list[str] | None
    ngrams: list[int]
    """Minimum and maximum number of parts of a term."""
    is_binary: bool
    dtype: str
    weights: WordWeights | None

    _columns: dict[str, int] = field(init=False, repr=False)
    _analyze: Callable[[str], list[str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._columns = {term: position for position, term in enumerate(self.terms.tolist())}
        self._analyze = self._analyzer()

    def transform(self, data: Data) -> Data:
        """Returns the counts, weighted if there are weights.

        Raises:
            ValueError: a text is missing.
        """
        (texts,) = data.arrays if isinstance(data, Columns) else (filled(data),)
        columns: list[int] = []
        counts: list[int] = []
        starts = [0]
        for text in texts.tolist():
            if not isinstance(text, str):
                raise ValueError("a text is missing")  # noqa: TRY004  # as the original
            found: dict[int, int] = {}
            for term in self._analyze(text):
                column = self._columns.get(term)
                if column is not None:
                    found[column] = found.get(column, 0) + 1
            ordered = sorted(found)
            columns += ordered
            counts += [found[column] for column in ordered]
            starts.append(len(columns))
        values = (
            np.ones(len(counts), self.dtype)
            if self.is_binary
            else np.array(counts, np.intc).astype(self.dtype)
        )
        out = Sparse(values, np.array(columns, np.intp), np.array(starts), len(self.terms))
        return self.weights.transform(out) if self.weights is not None else out

    def _analyzer(self) -> Callable[[str], list[str]]:
        prepare = self._preprocessor()
        fewest, most = self.ngrams
        if self.analyzer == "char":
            return lambda text: _char_ngrams(_BLANKS.sub(" ", prepare(text)), fewest, most)
        if self.analyzer == "char_wb":
            return lambda text: _char_wb_ngrams(_BLANKS.sub(" ", prepare(text)), fewest, most)
        assert self.token_pattern is not None
        tokens = re.compile(self.token_pattern).findall
        stop_words = frozenset(self.stop_words or ())
        if not stop_words:
            return lambda text: _word_ngrams(tokens(prepare(text)), fewest, most)
        return lambda text: _word_ngrams(
            [word for word in tokens(prepare(text)) if word not in stop_words], fewest, most
        )

    def _preprocessor(self) -> Callable[[str], str]:
        strip = {"ascii": _strip_to_ascii, "unicode": _strip_accents}.get(self.accents or "")
        steps = [step for step in (str.lower if self.lowercase else None, strip) if step is not None]
        return lambda text: functools.reduce(lambda said, step: step(said), steps, text)


def _word_ngrams(words: list[str], fewest: int, most: int) -> list[str]:
    """Source: sklearn.feature_extraction.text, `_word_ngrams`; the same for characters."""
    if most == 1:
        return words
    out = list(words) if fewest == 1 else []
    for n in range(2 if fewest == 1 else fewest, min(most, len(words)) + 1):
        out += [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return out


def _char_ngrams(text: str, fewest: int, most: int) -> list[str]:
    return [
        text[i : i + n] for n in range(fewest, min(most, len(text)) + 1) for i in range(len(text) - n + 1)
    ]


def _char_wb_ngrams(text: str, fewest: int, most: int) -> list[str]:
    out = []
    for word in text.split():
        padded = f" {word} "
        for n in range(fewest, most + 1):
            out += [padded[i : i + n] for i in range(max(len(padded) - n, 0) + 1)]
            if n >= len(padded):
                break  # a short word is counted once
    return out


def _strip_to_ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ASCII", "ignore").decode("ASCII")


def _strip_accents(text: str) -> str:
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


@compiles_transformer("sklearn.CountVectorizer")
def compile_count_vectorizer(fitted: Any, sample: Data) -> Transformer:
    """Compiles a vectorizer without custom functions."""
    return _compile_counts(fitted, sample, None)


@compiles_transformer("sklearn.TfidfVectorizer")
def compile_tfidf_vectorizer(fitted: Any, sample: Data) -> Transformer:
    """The same, with weights."""
    return _compile_counts(fitted, sample, _compile_weights(fitted._tfidf))  # noqa: SLF001  # not public


@compiles_transformer("sklearn.TfidfTransformer")
def compile_tfidf_transformer(fitted: Any, sample: Data) -> Transformer:  # noqa: ARG001  # it uses no column
    """Compiles TfidfTransformer."""
    return _compile_weights(fitted)


def _compile_counts(fitted: Any, sample: Data, weights: WordWeights | None) -> Transformer:
    if isinstance(sample, Columns) and not (sample.is_flat and len(sample.arrays) == 1):
        raise NotCompiled("expected one column of texts")
    for name in ("preprocessor", "tokenizer"):
        if getattr(fitted, name) is not None:
            raise NotCompiled(f"its {name} is a function")
    if callable(fitted.analyzer) or callable(fitted.strip_accents):
        raise NotCompiled("it analyzes texts with a function")
    if fitted.input != "content":
        raise NotCompiled("it reads files")
    words = fitted.get_stop_words() if fitted.analyzer == "word" else None
    terms: npt.NDArray[np.object_] = np.empty(len(fitted.vocabulary_), dtype=object)
    for term, column in fitted.vocabulary_.items():
        terms[column] = str(term)
    try:
        "".join([*terms.tolist(), *(words or ())]).encode()
    except UnicodeEncodeError:
        raise NotCompiled("one of its terms is not Unicode") from None
    return WordCounts(
        terms,
        fitted.analyzer,
        bool(fitted.lowercase),
        fitted.strip_accents or None,
        fitted.token_pattern if fitted.analyzer == "word" else None,
        None if words is None else sorted(words),
        [int(n) for n in fitted.ngram_range],
        bool(fitted.binary),
        np.dtype(fitted.dtype).str,
        weights,
    )


def _compile_weights(fitted: Any) -> WordWeights:
    return WordWeights(getattr(fitted, "idf_", None), bool(fitted.sublinear_tf), fitted.norm)
