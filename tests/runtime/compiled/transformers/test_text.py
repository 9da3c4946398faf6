"""Vectorizers of text: the terms, counts and weights of scikit-learn, and what is multiplied with them."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from serving.runtime.compiled.data import Columns, NotCompiled
from serving.runtime.compiled.nodes import compile_predictor, compile_transformer
from serving.runtime.compiled.sparse import Sparse
from tests.runtime.compiled.parity import FEW, assert_same, compiled, to_data

WORDS = [
    "the",
    "good",
    "bad",
    "ugly",
    "film",
    "Film",
    "was",
    "naïve",
    "café",
    "straße",
    "İstanbul",
    "a",
    "I",
    "ab",
    "42",
    "x_1",
    "ﬁne",
    "éte",
    "",
    "\t",
    "😀",
    "don't",
]

VECTORIZERS = [
    CountVectorizer(),
    CountVectorizer(binary=True, dtype=np.float32),
    CountVectorizer(lowercase=False, ngram_range=(1, 3)),
    CountVectorizer(ngram_range=(2, 2), token_pattern=r"\S+"),
    CountVectorizer(token_pattern=r"(\w)\w*", stop_words=["the", "was"]),
    CountVectorizer(stop_words="english", max_features=5),
    CountVectorizer(vocabulary=["film", "good", "zebra"]),
    CountVectorizer(strip_accents="ascii"),
    CountVectorizer(strip_accents="unicode", min_df=2),
    CountVectorizer(ngram_range=(0, 2)),
    CountVectorizer(dtype=np.uint8, analyzer="char"),
    CountVectorizer(analyzer="char", ngram_range=(1, 3)),
    CountVectorizer(analyzer="char", ngram_range=(2, 5), strip_accents="unicode"),
    CountVectorizer(analyzer="char_wb", ngram_range=(2, 6)),
    CountVectorizer(analyzer="char_wb", ngram_range=(1, 1)),
    TfidfVectorizer(),
    TfidfVectorizer(norm="l1", sublinear_tf=True),
    TfidfVectorizer(norm=None, smooth_idf=False),
    TfidfVectorizer(use_idf=False, dtype=np.float32),
    TfidfVectorizer(dtype=np.float32, sublinear_tf=True),
    TfidfVectorizer(binary=True, ngram_range=(1, 2)),
    make_pipeline(CountVectorizer(), TfidfTransformer()),
    make_union(CountVectorizer(), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3))),
]

PREDICTORS = [
    LogisticRegression(),
    SGDClassifier(loss="log_loss", random_state=0),
    LinearSVC(),
    MultinomialNB(),
    ComplementNB(),
    BernoulliNB(),
    BernoulliNB(binarize=0.3),
    CalibratedClassifierCV(LinearSVC(), cv=2),
    OneVsRestClassifier(LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
]

texts_of = (
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
    | st.text(max_size=30)
    | st.sampled_from(["good " * 300])
)


def flat(texts: list[str]) -> Columns:
    return Columns(("text",), [np.array(texts, dtype=object)], is_flat=True)


def sentences(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(3, 12))) for _ in range(n)]


def labels(texts: list[str], n_classes: int = 3) -> np.ndarray:
    return np.array([f"class {len(text) % n_classes}" for text in texts])


@pytest.mark.parametrize("vectorizer", VECTORIZERS, ids=lambda v: repr(v).replace("\n", ""))
@FEW
@given(st.lists(texts_of, min_size=1, max_size=6))
def test_terms_are_counted_and_weighted_as_scikit_learn_does(vectorizer, texts):
    own = vectorizer.fit(sentences(40))
    got = compile_transformer(own, flat(["any"])).transform(flat(texts))
    assert isinstance(got, Sparse)
    expected = own.transform(texts).tocsr()
    np.testing.assert_array_equal(got.starts, expected.indptr)
    np.testing.assert_array_equal(got.columns, expected.indices)
    np.testing.assert_array_equal(got.values, expected.data)
    assert got.dtype == expected.dtype


@pytest.mark.parametrize("predictor", PREDICTORS, ids=repr)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("vectorizer", [TfidfVectorizer(), CountVectorizer(ngram_range=(1, 2))], ids=repr)
def test_models_of_texts_say_what_they_say(predictor, n_classes, vectorizer):
    texts = sentences(90)
    model = make_pipeline(vectorizer, predictor).fit(texts, labels(texts, n_classes))
    node = compiled(model, flat(texts[:3]))
    for rows in (texts, texts[:1], ["", "nothing known"], ["Good film, bad café! " * 40]):
        has_probabilities = hasattr(model, "predict_proba")
        got = node.output(flat(rows))
        np.testing.assert_array_equal(got.labels, model.predict(rows))
        assert (got.probabilities is not None) == has_probabilities
        if has_probabilities:
            np.testing.assert_allclose(got.probabilities, model.predict_proba(rows), rtol=0, atol=1e-15)


@pytest.mark.parametrize("sparse_threshold", [0.0, 0.3, 1.0])
def test_texts_stand_beside_other_columns(sparse_threshold):
    texts = sentences(90)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.normal(40, 10, 90), "review": texts, "city": rng.choice(["Rome", "Oslo"], 90)}
    )
    front = make_column_transformer(
        (TfidfVectorizer(), "review"),
        (OneHotEncoder(), ["city"]),
        (StandardScaler(), ["age"]),
        sparse_threshold=sparse_threshold,
    )
    front.set_params(transformer_weights={"tfidfvectorizer": 0.7})
    model = make_pipeline(front, LogisticRegression()).fit(frame, labels(texts))
    assert_same(model, frame)
    assert_same(make_pipeline(front, Ridge()).fit(frame, frame["age"]), frame)


def test_a_missing_text_is_refused_as_the_original_does():
    texts = sentences(20)
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, labels(texts))
    node = compiled(model, flat(texts[:3]))
    for missing in (None, np.nan):
        with pytest.raises((ValueError, AttributeError)):
            model.predict(["good", missing])
        with pytest.raises(ValueError, match="a text is missing"):
            node.output(flat(["good", missing]))


@pytest.mark.parametrize(
    ("vectorizer", "reason"),
    [
        (CountVectorizer(tokenizer=str.split, token_pattern=None), "tokenizer is a function"),
        (CountVectorizer(preprocessor=str.upper), "preprocessor is a function"),
        (CountVectorizer(analyzer=str.split), "with a function"),
        (CountVectorizer(strip_accents=str.upper), "with a function"),
        (CountVectorizer(input="file"), "reads files"),
    ],
)
def test_functions_of_others_and_files_stay_in_the_library(vectorizer, reason):
    if vectorizer.input == "content":
        vectorizer.fit(sentences(20))
    with pytest.raises(NotCompiled, match=reason):
        compile_transformer(vectorizer, flat(["any"]))


def test_what_takes_no_sparse_matrix_is_not_compiled():
    texts = sentences(40)
    for last in (RandomForestClassifier(3), make_pipeline(StandardScaler(with_mean=False), LinearSVC())):
        model = make_pipeline(TfidfVectorizer(), last).fit(texts, labels(texts))
        with pytest.raises(NotCompiled, match="does not take the sparse matrix"):
            compile_predictor(model, flat(texts[:3]))
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels(texts))
    with pytest.raises(NotCompiled, match="one column of texts"):
        compile_predictor(model, to_data(pd.DataFrame({"a": texts, "b": texts})))


def test_a_product_takes_no_more_memory_than_its_rows() -> None:
    rng = np.random.default_rng(0)
    n_rows, n_words, weights = 500, 100, rng.normal(size=(5000, 300))
    columns = np.sort(rng.integers(0, 5000, (n_rows, n_words)), axis=1).ravel()
    rows = Sparse(rng.random(n_rows * n_words), columns, np.arange(n_rows + 1) * n_words, 5000)
    tracemalloc.start()
    got = rows @ weights
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * got.nbytes + 10 * n_words * weights[0].nbytes
    matrix = csr_array((rows.values, rows.columns, rows.starts), rows.shape)
    np.testing.assert_array_equal(got, matrix @ weights)
    np.testing.assert_array_equal(rows @ weights[:, 0], matrix @ weights[:, 0])


def test_weights_of_numpys_and_half_a_surrogate_pair_stay_in_the_library():
    texts = sentences(20)
    union = FeatureUnion(
        [("a", TfidfVectorizer(dtype=np.float32))], transformer_weights={"a": np.float64(0.3)}
    )
    with pytest.raises(NotCompiled, match="NumPy's numbers"):
        compile_transformer(union.fit(texts), flat(texts[:3]))
    odd = CountVectorizer(vocabulary=["good", "\ud800x"]).fit(texts)
    with pytest.raises(NotCompiled, match="Unicode"):
        compile_transformer(odd, flat(texts[:3]))
