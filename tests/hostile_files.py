"""Files that somebody made to harm whoever loads them, of every format, and the parts they are made of.

python tests/hostile_files.py FOLDER     loads every file of a folder, and prints a JSON line for each
python tests/hostile_files.py --sing FILE   unpickles one, which shows that the canary sings
"""

import copy
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def zipped(schema: object, **files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        if schema is not None:
            archive.writestr("schema.json", schema if isinstance(schema, (str, bytes)) else json.dumps(schema))
    return buffer.getvalue()


def rewritten(change: Callable[[dict[str, Any]], None], data: bytes) -> bytes:
    """Return the file with its schema changed."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    files = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    schema = json.loads(archive.read("schema.json"))
    change(schema)
    return zipped(schema, **files)


def naming(module: str, name: str, loader: str, content: Any = None) -> Callable[[dict[str, Any]], None]:
    """Put an object of a stranger's choice where the estimator keeps its parameter C."""

    def change(schema: dict[str, Any]) -> None:
        node = {"__class__": name, "__module__": module, "__loader__": loader, "__id__": 1, "content": content}
        schema["content"]["content"]["C"] = node

    return change


def whole(module: str, name: str, loader: str, content: Any = None) -> Callable[[dict[str, Any]], None]:
    """Put it in the estimator's own place."""

    def change(schema: dict[str, Any]) -> None:
        schema.update({"__class__": name, "__module__": module, "__loader__": loader, "content": content})

    return change


def words(*items: str) -> dict[str, Any]:
    parts = [
        {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(i), "__id__": n}
        for n, i in enumerate(items, 100)
    ]
    return {"__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "content": parts, "__id__": 99}


ROWS = np.random.default_rng(7).normal(size=(120, 3)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0).astype(int)
GRADES = np.digitize(ROWS[:, 0], [-0.5, 0.5])


def with_arrays(
    data: bytes, change: Callable[[np.ndarray], np.ndarray | None], when: Callable[[np.ndarray], bool]
) -> bytes:
    """Return a skops file with those of its arrays changed that `when` chooses."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    files, found = {}, 0
    for name in archive.namelist():
        files[name] = archive.read(name)
        if not name.endswith(".npy"):
            continue
        array = np.load(io.BytesIO(files[name]))
        if when(array):
            found += 1
            changed = change(array)
            buffer = io.BytesIO()
            np.save(buffer, array if changed is None else changed)
            files[name] = buffer.getvalue()
    assert found
    return zipped(files.pop("schema.json"), **files)


def setting(field: str, node: int, value: Any) -> Callable[[np.ndarray], None]:
    """Return a change of one field of one node."""

    def change(array: np.ndarray) -> None:
        array[field][node] = value

    return change


def has_nodes(array: np.ndarray) -> bool:
    return bool(array.dtype.names)


def skops_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import SplineTransformer
    from sklearn.svm import SVR
    from sklearn.tree import DecisionTreeClassifier
    from skops import io as skops_io

    def dumped(model: Any, labels: Any = LABELS) -> bytes:
        return skops_io.dumps(model.fit(ROWS, labels))

    linear = dumped(LogisticRegression())
    tree = dumped(DecisionTreeClassifier(max_depth=3, random_state=0))
    forest = dumped(RandomForestClassifier(2, max_depth=3, random_state=0))
    with_categories = HistGradientBoostingClassifier(max_iter=2, categorical_features=[2], min_samples_leaf=2)
    coded = np.column_stack([ROWS[:, :2], np.arange(120) % 5])
    histogram = skops_io.dumps(with_categories.fit(coded, np.arange(120) % 5 % 2))
    vectors = dumped(SVR())
    neighbours = dumped(KNeighborsClassifier(algorithm="brute"), GRADES)
    splines = dumped(make_pipeline(SplineTransformer(n_knots=4), LogisticRegression()))
    members = {
        name: zipfile.ZipFile(io.BytesIO(linear)).read(name) for name in zipfile.ZipFile(io.BytesIO(linear)).namelist()
    }
    schema = members.pop("schema.json")
    [first, *_] = members
    pickled = io.BytesIO()
    np.save(pickled, np.array([Canary(folder / "canary")], dtype=object), allow_pickle=True)
    long = io.BytesIO()
    np.lib.format.write_array_header_1_0(long, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("schema.json", schema)
        archive.writestr("zeros.npy", bytes(2**27))
    twice = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in [*members.items(), (first, members[first]), ("schema.json", schema)]:
            archive.writestr(name, data)

    def in_trees(key: str, content: Any) -> Callable[[dict[str, Any]], None]:
        """Change a number in the state of every tree."""

        def change(schema: Any) -> None:
            waiting = [schema]
            while waiting:
                node = waiting.pop()
                if isinstance(node, dict):
                    if node.get("__loader__") == "TreeNode":
                        if key == "outputs":
                            node["__reduce__"]["args"]["content"][2].update(content=str(content), __id__=1)
                        else:
                            node["content"]["content"][key].update(content=str(content), __id__=1)
                    waiting.extend(node.values())
                elif isinstance(node, list):
                    waiting.extend(node)

        return change

    def one_number_for_two(schema: Any) -> None:
        node = schema["content"]["content"]["C"]
        schema["content"]["content"]["tol"]["__id__"] = node["__id__"]

    def is_labels(array: np.ndarray) -> bool:
        return array.dtype.kind == "i" and array.shape == (120,)

    def is_rows(array: np.ndarray) -> bool:
        return array.shape == (120, 3)

    malformed = "holds malformed trees"
    return {
        "skops_system": (rewritten(naming("os", "system", "TypeNode", {}), linear), "os.system"),
        "skops_eval": (rewritten(naming("builtins", "eval", "TypeNode", {}), linear), "builtins.eval"),
        "skops_popen": (
            rewritten(whole("subprocess", "Popen", "ConstructorFromReduceNode", words("touch canary")), linear),
            "subprocess.Popen",
        ),
        "skops_import": (rewritten(naming("canary_module", "Canary", "ObjectNode"), linear), "canary_module.Canary"),
        "skops_nested": (
            rewritten(
                naming(
                    "builtins",
                    "list",
                    "ListNode",
                    [words("a")] * 3
                    + [{"__class__": "system", "__module__": "os", "__loader__": "TypeNode", "__id__": 7}],
                ),
                linear,
            ),
            "os.system",
        ),
        "skops_array_is_a_pickle": (
            zipped(schema, **dict.fromkeys(members, pickled.getvalue())),
            "cannot be loaded here",
        ),
        "skops_path_above": (
            zipped(schema, **members, **{"../../canary.npy": members[first]}),
            "which leads elsewhere",
        ),
        "skops_path_absolute": (
            zipped(schema, **members, **{"/tmp/canary.npy": members[first]}),
            "which leads elsewhere",
        ),
        "skops_path_of_windows": (
            zipped(schema, **members, **{"C:\\canary.npy": members[first]}),
            "which leads elsewhere",
        ),
        "skops_member_twice": (twice.getvalue(), "the same name"),
        "skops_bomb": (bomb.getvalue(), "would unpack to"),
        "skops_array_too_long": (zipped(schema, **{**members, first: long.getvalue()}), "is not as long as it says"),
        "skops_two_of_one_number": (rewritten(one_number_for_two, linear), "two objects in it have the same number"),
        "skops_cut_off": (linear[: len(linear) // 2], "is not a"),
        "skops_cut_off_late": (linear[:-10], "is not a"),
        "skops_too_deep": (zipped('{"content":' * 100_000), "is not a readable skops file"),
        "tree_child": (with_arrays(tree, setting("left_child", 0, 10**6), has_nodes), malformed),
        "tree_child_below_zero": (with_arrays(tree, setting("right_child", 0, -7), has_nodes), malformed),
        "tree_cycle": (with_arrays(tree, setting("left_child", 0, 0), has_nodes), malformed),
        "tree_column": (with_arrays(tree, setting("feature", 0, 10**7), has_nodes), malformed),
        "tree_column_below_zero": (with_arrays(forest, setting("feature", 0, -(2**40)), has_nodes), malformed),
        "tree_nodes": (rewritten(in_trees("node_count", -5), tree), malformed),
        "tree_outputs": (rewritten(in_trees("outputs", 10**8), tree), malformed),
        "histogram_child": (with_arrays(histogram, setting("right", 0, 2**31), has_nodes), malformed),
        "histogram_cycle": (with_arrays(histogram, setting("left", 0, 0), has_nodes), malformed),
        "histogram_column": (with_arrays(histogram, setting("feature_idx", 0, 2**40), has_nodes), malformed),
        "histogram_bits": (with_arrays(histogram, setting("bitset_idx", 0, 2**30), has_nodes), malformed),
        "support_vectors": (
            with_arrays(vectors, lambda a: a * 1000, lambda a: a.dtype == np.int32 and a.shape == (2,)),
            "holds malformed support vectors",
        ),
        "support_vectors_short": (
            with_arrays(vectors, lambda a: a[:, :5], lambda a: a.ndim == 2 and a.shape[0] == 1),
            "holds malformed support vectors",
        ),
        "neighbours_label": (with_arrays(neighbours, lambda a: a + 10**6, is_labels), "a label is of no class"),
        "neighbours_rows": (with_arrays(neighbours, lambda a: a[:, :1], is_rows), "holds malformed neighbours"),
        "spline_coefficients": (
            with_arrays(splines, lambda a: a[:2], lambda a: a.ndim == 2 and a.shape == (6, 6)),
            "holds a malformed spline",
        ),
    }


def changed_part(model: Any, change: Callable[[Any], None]) -> bytes:
    """Return a fitted estimator's file after a change of its attributes."""
    from skops import io as skops_io

    changed = copy.deepcopy(model)
    change(changed)
    return skops_io.dumps(changed)


def assigning(path: str, value: Any) -> Callable[[Any], None]:
    """Return a change that sets an attribute of an estimator; of a dotted path, the last one's."""

    def change(model: Any) -> None:
        *steps, last = path.split(".")
        for step in steps:
            model = getattr(model, step)
        setattr(model, last, value)

    return change


def skops_shape_files() -> dict[str, tuple[bytes, str]]:
    """Return estimators whose parts fit together in every way but one, which compiled code would not notice."""
    import pandas as pd
    from sklearn.cluster import KMeans
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        HistGradientBoostingClassifier,
        IsolationForest,
        RandomForestClassifier,
        RandomForestRegressor,
        VotingRegressor,
    )
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeRegressor

    wide = np.random.default_rng(3).normal(size=(120, 50))
    boosting = GradientBoostingClassifier(n_estimators=12, max_depth=1, random_state=0).fit(ROWS, LABELS)
    graded = GradientBoostingClassifier(n_estimators=3, max_depth=1, random_state=0).fit(ROWS, GRADES)
    numbers = GradientBoostingRegressor(n_estimators=3, max_depth=1, random_state=0).fit(ROWS, ROWS[:, 0])
    two = DecisionTreeRegressor(max_depth=1, random_state=0).fit(ROWS, ROWS[:, :2])
    more = DecisionTreeRegressor(max_depth=1, random_state=0).fit(wide, ROWS[:, 0])
    forest = RandomForestClassifier(2, max_depth=2, random_state=0).fit(ROWS, GRADES)
    first_two = RandomForestClassifier(2, max_depth=2, random_state=0).fit(ROWS, LABELS)
    both = RandomForestRegressor(2, max_depth=2, random_state=0).fit(ROWS, ROWS[:, :2])
    one = RandomForestRegressor(2, max_depth=2, random_state=0).fit(ROWS, ROWS[:, 0])
    small = {"max_iter": 2, "min_samples_leaf": 2}
    coded = np.column_stack([ROWS[:, :2], np.arange(120) % 5])
    histogram = HistGradientBoostingClassifier(**small, categorical_features=[2]).fit(coded, np.arange(120) % 5 % 2)
    frame = pd.DataFrame({"a": ROWS[:, 0], "b": pd.Categorical(np.arange(120) % 3), "c": ROWS[:, 2]})
    prepared = HistGradientBoostingClassifier(**small, categorical_features="from_dtype").fit(frame, LABELS)
    several = HistGradientBoostingClassifier(**small, categorical_features=None).fit(ROWS, GRADES)
    one_hot = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(coded[:, 2:], LABELS)
    vectors = SVC(probability=True).fit(ROWS, GRADES)
    clusters = make_pipeline(KMeans(3, n_init=1, random_state=0), LogisticRegression()).fit(ROWS, LABELS)
    words = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["alpha beta", "gamma"] * 60, LABELS)
    hashed = make_pipeline(HashingVectorizer(n_features=8), LogisticRegression()).fit(["alpha", "beta"] * 60, LABELS)
    outliers = VotingRegressor([("a", LinearRegression())]).fit(ROWS, ROWS[:, 0])
    outliers.estimators_ = [IsolationForest(n_estimators=2, random_state=0).fit(wide)]

    def first_tree(tree: Any) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            model.estimators_[0, 0] = tree

        return change

    def mask(model: Any) -> None:
        model._preprocessor.transformers_ = model._preprocessor.transformers_[:1]

    def masks(model: Any) -> None:
        model._preprocessor._transformer_to_input_indices = {"encoder": [1], "numerical": [0]}

    def conversion(model: Any) -> None:
        model._preprocessor.transformers_[1][1].func = np.square

    def bins(model: Any) -> None:
        model._bin_mapper.bin_thresholds_[0] = np.array([0.0, 2.0**20])

    def rows(model: Any) -> None:
        model._predictors[0] = model._predictors[0] * 2

    def unsorted(model: Any) -> None:
        model[0].categories_[0] = model[0].categories_[0][::-1].copy()

    def centres(model: Any) -> None:
        model[0].cluster_centers_ = model[0].cluster_centers_[:, :1].copy()

    transposed = assigning("estimators_", boosting.estimators_.reshape(1, 12))
    of_two = DummyClassifier(strategy="prior").fit(ROWS, LABELS)
    files: dict[str, tuple[Any, Callable[[Any], None], str]] = {
        "boosting_transposed": (boosting, transposed, "not one tree for each"),
        "boosting_flat": (boosting, assigning("estimators_", boosting.estimators_.ravel()), "are no matrix"),
        "boosting_none": (boosting, assigning("estimators_", boosting.estimators_[:0]), "are no matrix"),
        "boosting_width": (graded, assigning("estimators_", graded.estimators_[:, :2]), "not one tree for each"),
        "boosting_trees": (graded, assigning("n_trees_per_iteration_", 1), "not one tree for each"),
        "boosting_classes": (graded, assigning("n_classes_", 2), "another number of classes"),
        "boosting_tree_of_two": (boosting, first_tree(two), "predicts more than one number"),
        "boosting_tree_of_more": (boosting, first_tree(more), "reads other columns"),
        "boosting_tree_of_trees": (boosting, first_tree(one), "reads other columns"),
        "boosting_first_narrow": (graded, assigning("init_", of_two), "not the shape of its trees"),
        "boosting_first_odd": (graded, assigning("init_._strategy", "uniform"), "not the shape of its trees"),
        "boosting_first_none": (numbers, assigning("init_.constant_", np.zeros((1, 0))), "not the shape of its trees"),
        "boosting_first_own": (graded, assigning("init_", first_two), "whose `init` is a RandomForestClassifier"),
        "boosting_loss": (boosting, assigning("_loss.link", boosting.init_), "a loss of something else"),
        "forest_classes": (forest, assigning("estimators_", first_two.estimators_), "other classes than"),
        "forest_outputs": (one, assigning("estimators_", both.estimators_), "other outputs than"),
        "forest_of_something": (one, assigning("estimators_", [LinearRegression()]), "reads other columns"),
        "isolation_forest": (outliers, lambda _: None, "sklearn.ensemble._iforest.IsolationForest"),
        "histogram_known": (histogram, bins, "no number below 256"),
        "histogram_trees": (histogram, rows, "not one tree for each"),
        "histogram_first": (several, assigning("_baseline_prediction", np.zeros((1, 1))), "has not the shape"),
        "histogram_width": (several, assigning("n_trees_per_iteration_", 1), "has not the shape"),
        "histogram_in_fit": (histogram, assigning("_in_fit", True), "given other columns"),
        "histogram_columns_in": (several, assigning("n_features_in_", 1), "given other columns"),
        "histogram_bins": (histogram, assigning("_bin_mapper.bin_thresholds_", []), "not as many columns as it says"),
        "histogram_prepared_by_less": (prepared, mask, "prepared by something else"),
        "histogram_prepared_of_less": (prepared, masks, "other columns than it says"),
        "histogram_prepared_otherwise": (prepared, conversion, "prepared by something else"),
        "histogram_unprepared": (prepared, assigning("_preprocessor", one_hot), "a malformed estimator"),
        "one_hot_width": (one_hot, lambda model: assigning("_n_features_outs", [1])(model[0]), "malformed categories"),
        "one_hot_order": (one_hot, unsorted, "malformed categories"),
        "vectors_probabilities": (vectors, assigning("_probA", np.zeros(1)), "malformed support vectors: _probA"),
        "vectors_kernel": (vectors, assigning("kernel", "precomputed"), "a kernel of its own"),
        "clusters_centres": (clusters, centres, "malformed clusters"),
        "clusters_threads": (clusters, lambda m: assigning("_n_threads", 10**7)(m[0]), "malformed clusters"),
        "words_columns": (words, lambda m: m[0].vocabulary_.update(alpha=10**8), "malformed vocabulary"),
        "words_hashed": (hashed, lambda m: assigning("n_features", 0)(m[0]), "malformed number of columns"),
    }
    return {f"skops_{name}": (changed_part(model, change), told) for name, (model, change, told) in files.items()}


def skops_reach_files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Return estimators that would read a file, write one or call something, of classes and parameters alone."""
    from functools import partial

    from sklearn.cluster import DBSCAN
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from skops import io as skops_io

    path = str(folder / "canary")
    texts = ["alpha beta", "gamma"] * 60
    log = make_pipeline(FunctionTransformer(np.square), LogisticRegression()).fit(ROWS, LABELS)

    def vectorizer(kind: Any, **parameters: Any) -> bytes:
        made = make_pipeline(kind(), LogisticRegression()).fit(texts, LABELS)
        return changed_part(made, lambda model: [setattr(model[0], *item) for item in parameters.items()])

    def step(made: Any) -> bytes:
        return changed_part(log, lambda model: model.steps.insert(0, ("a", made)))

    def calling(module: str, name: str, loader: str = "FunctionNode", **rest: Any) -> Callable[[Any], None]:
        """Call another function where the transformer calls np.square."""

        def change(schema: Any) -> None:
            waiting, found = [schema], 0
            while waiting:
                node = waiting.pop()
                if isinstance(node, dict) and node.get("__class__") == "square":
                    node.update({"__module__": module, "__class__": name, "__loader__": loader, **rest})
                    found += 1
                waiting.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
            assert found

        return change

    functions = [
        ("numpy", "load"), ("numpy", "save"), ("numpy", "fromfile"), ("numpy", "loadtxt"), ("numpy", "memmap"),
        ("numpy.lib._npyio_impl", "save"), ("numpy", "vectorize"), ("numpy", "frompyfunc"), ("time", "time"),
        ("scipy.io", "loadmat"), ("scipy.io", "savemat"), ("scipy.datasets", "face"), ("joblib", "load"),
        ("sklearn.datasets", "load_files"), ("sklearn.datasets", "fetch_openml"), ("sklearn.externals", "joblib"),
        ("sklearn.utils", "check_array"), ("sklearn.datasets._base", "load_files"),
    ]  # fmt: skip
    held = skops_io.dumps(log)
    operators = {
        "methodcaller": words("to_pickle", path), "attrgetter": words("__class__"), "itemgetter": words("a"),
    }  # fmt: skip
    could = "could read files or call anything"
    return {
        **{
            f"reach_{module}.{name}": (rewritten(calling(module, name), held), f"{module}.{name}")
            for module, name in functions
        },
        **{
            f"reach_{name}": (rewritten(calling("operator", name, "OperatorFuncNode", attrs=attrs), held), name)
            for name, attrs in operators.items()
        },
        "reach_words_of_a_file": (vectorizer(CountVectorizer, input="filename"), could),
        "reach_words_of_an_object": (vectorizer(TfidfVectorizer, input="file"), could),
        "reach_hashed_words_of_a_file": (vectorizer(HashingVectorizer, input="filename"), could),
        "reach_analyzer": (vectorizer(CountVectorizer, analyzer=np.square), could),
        "reach_tokenizer": (vectorizer(TfidfVectorizer, tokenizer=np.square), could),
        "reach_preprocessor": (vectorizer(HashingVectorizer, preprocessor=np.square), could),
        "reach_accents": (vectorizer(CountVectorizer, strip_accents=np.square), could),
        "reach_memory": (changed_part(log, assigning("memory", path)), "keep its steps in a folder"),
        "reach_method": (changed_part(log, assigning("predict_proba", np.square)), "replaces its own predict_proba"),
        "reach_out": (
            changed_part(log, lambda m: assigning("kw_args", {"out": np.zeros(3)})(m[0])), "would call a function with",
        ),
        "reach_where": (
            changed_part(log, lambda m: assigning("func", partial(np.square, where=False))(m[0])),
            "would call a function with where",
        ),
        "reach_clusters": (step(DBSCAN()), "sklearn.cluster._dbscan.DBSCAN"),
        "reach_dictionaries": (step(DictVectorizer()), "sklearn.feature_extraction._dict_vectorizer.DictVectorizer"),
    }  # fmt: skip


def lightgbm_files() -> dict[str, tuple[bytes, str]]:
    import re

    import lightgbm
    import pandas as pd

    small = {"n_estimators": 2, "num_leaves": 4, "min_child_samples": 2, "verbose": -1, "n_jobs": 1}
    frame = pd.DataFrame({"a": ROWS[:, 0], "c": pd.Categorical(np.arange(120) % 6)})
    odd = np.arange(120) % 6 % 2
    options = {**small, "cat_smooth": 1, "min_data_per_group": 1, "max_cat_to_onehot": 1}
    good = lightgbm.LGBMClassifier(**small).fit(ROWS, LABELS).booster_.model_to_string()
    several = lightgbm.LGBMClassifier(**small).fit(ROWS, GRADES).booster_.model_to_string()
    by_category = lightgbm.LGBMClassifier(**options).fit(frame, odd).booster_.model_to_string()

    def changed(pattern: str, new: str, text: str = good) -> bytes:
        """Return the text with the first line that matches changed, and the sizes of its trees in order."""
        found, count = re.subn(pattern, new, text, count=1, flags=re.MULTILINE)
        assert count == 1
        return resized(found)

    def resized(text: str) -> bytes:
        start, end = text.index("Tree=0"), text.index("end of trees")
        blocks = [f"Tree={part}" for part in text[start:end].split("Tree=")[1:]]
        sizes = " ".join(str(len(block)) for block in blocks)
        return re.sub(r"tree_sizes=.*", f"tree_sizes={sizes}", text).encode()

    malformed = "holds malformed trees"
    return {
        "lightgbm_column": (changed(r"^split_feature=\d+", "split_feature=1000000"), malformed),
        "lightgbm_column_below_zero": (changed(r"^split_feature=\d+", "split_feature=-5"), malformed),
        "lightgbm_child": (changed(r"^left_child=-?\d+", "left_child=99999999"), malformed),
        "lightgbm_leaf": (changed(r"^right_child=-?\d+", "right_child=-99999999"), malformed),
        "lightgbm_cycle": (changed(r"^left_child=-?\d+", "left_child=0"), malformed),
        "lightgbm_leaves": (changed(r"^num_leaves=\d+", "num_leaves=1000000000"), malformed),
        "lightgbm_no_leaves": (changed(r"^num_leaves=\d+", "num_leaves=-3"), malformed),
        "lightgbm_counts": (changed(r"^leaf_count=.*", "leaf_count=-1 -2"), malformed),
        "lightgbm_not_finite": (changed(r"^leaf_value=\S+", "leaf_value=1e999"), malformed),
        "lightgbm_decision": (changed(r"^decision_type=\d+", "decision_type=255"), malformed),
        "lightgbm_classes": (changed(r"^num_class=\d+", "num_class=2000000000", several), malformed),
        "lightgbm_objective_classes": (changed(r"num_class:3", "num_class:30000000", several), malformed),
        "lightgbm_columns": (changed(r"^max_feature_idx=\d+", "max_feature_idx=2147483647"), malformed),
        "lightgbm_sizes": (good.replace("tree_sizes=", "tree_sizes=9").encode(), malformed),
        "lightgbm_key_twice": (changed(r"^num_cat=0", "num_cat=0\nnum_cat=0"), malformed),
        "lightgbm_key_unknown": (changed(r"^num_cat=0", "num_cat=0\nforcedsplits_filename=/etc/passwd"), malformed),
        "lightgbm_category": (changed(r"^cat_boundaries=0 \d+", "cat_boundaries=0 4000000", by_category), malformed),
        "lightgbm_category_bits": (changed(r"^cat_threshold=\d+", "cat_threshold=-1", by_category), malformed),
        "lightgbm_categories": (changed(r"^num_cat=[1-9]\d*", "num_cat=100000000", by_category), malformed),
        "lightgbm_categories_too_deep": (
            good.replace("pandas_categorical:null", "pandas_categorical:" + "[" * 10**6).encode(),
            "unreadable `pandas_categorical`",
        ),
        "lightgbm_custom": (changed(r"^objective=.*\n", ""), "would use an objective"),
        "lightgbm_cut_off": (good[: good.index("leaf_weight")].encode(), "was cut off"),
        "lightgbm_cut_off_early": (good[:40].encode(), "was cut off"),
        "lightgbm_noise": (b"tree\n" + bytes(range(256)) * 10, "is no text"),
    }


def xgboost_files() -> dict[str, tuple[bytes, str]]:
    import pandas as pd
    import xgboost

    small = {"n_estimators": 2, "max_depth": 2, "n_jobs": 1}
    good = bytes(xgboost.XGBClassifier(**small).fit(ROWS, LABELS).get_booster().save_raw("json"))
    frame = pd.DataFrame({"a": ROWS[:, 0], "c": pd.Categorical(np.arange(120) % 6)})
    categories = xgboost.XGBClassifier(**small, enable_categorical=True, max_cat_to_onehot=1)
    by_category = bytes(categories.fit(frame, np.arange(120) % 6 % 2).get_booster().save_raw("json"))

    def changed(path: str, value: Any, data: bytes = good) -> bytes:
        document = json.loads(data)
        document["learner"]["gradient_booster"]["model"].setdefault("weight_drop", [1.0, 1.0])
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        place = document
        for step in steps:
            place = place[step]
        assert copy.deepcopy(place[last]) != value
        place[last] = value
        return json.dumps(document).encode()

    tree = "learner.gradient_booster.model.trees.0"
    model = "learner.gradient_booster.model"
    malformed = "holds malformed trees"
    return {
        "xgboost_child": (changed(f"{tree}.left_children.0", 10**8), malformed),
        "xgboost_child_below_zero": (changed(f"{tree}.right_children.0", -9), malformed),
        "xgboost_cycle": (changed(f"{tree}.left_children.0", 0), malformed),
        "xgboost_column": (changed(f"{tree}.split_indices.0", 2**31), malformed),
        "xgboost_parent": (changed(f"{tree}.parents.1", 10**8), malformed),
        "xgboost_nodes": (changed(f"{tree}.tree_param.num_nodes", "1000000000"), malformed),
        "xgboost_lengths": (changed(f"{tree}.split_conditions", [1.0]), malformed),
        "xgboost_group": (changed(f"{model}.tree_info.0", 10**6), malformed),
        "xgboost_rounds": (changed(f"{model}.iteration_indptr", [0, 10**6]), malformed),
        "xgboost_trees": (changed(f"{model}.gbtree_model_param.num_trees", "1"), malformed),
        "xgboost_weights": (changed(f"{model}.weight_drop", [1.0]), malformed),
        "xgboost_classes": (changed("learner.learner_model_param.num_class", "2000000000"), malformed),
        "xgboost_columns": (changed("learner.learner_model_param.num_feature", "2"), malformed),
        "xgboost_base_score": (changed("learner.learner_model_param.base_score", "[1,2,3,4]"), malformed),
        "xgboost_best": (changed("learner.attributes", {"best_iteration": "99999"}), malformed),
        "xgboost_category": (changed(f"{tree}.categories.0", -(2**20), by_category), malformed),
        "xgboost_category_large": (changed(f"{tree}.categories.0", 2**31, by_category), malformed),
        "xgboost_segments": (changed(f"{tree}.categories_segments.0", 10**8, by_category), malformed),
        "xgboost_sizes": (changed(f"{tree}.categories_sizes.0", 10**8, by_category), malformed),
        "xgboost_encoding": (changed(f"{model}.cats.feature_segments.1", 10**8, by_category), malformed),
        "xgboost_not_finite": (good.replace(b'"split_conditions":[', b'"split_conditions":[1e999,', 1), malformed),
        "xgboost_nan": (good.replace(b'"split_conditions":[', b'"split_conditions":[NaN,', 1), "NaN is no number"),
        "xgboost_key_twice": (good.replace(b'"version":', b'"learner":{},"version":'), "a key stands twice"),
        "xgboost_too_deep": (b'{"learner":' + b"[" * 10**6, "nested deeper"),
        "xgboost_objective": (changed("learner.objective.name", "evil:objective"), "evil:objective"),
        "xgboost_cut_off": (good[: len(good) // 2], "is no readable JSON"),
        "xgboost_binary": (b"binf" + good, "binary formats"),
        "xgboost_something_else": (b'{"a": 1}', "is no XGBoost model"),
    }


def onnx_files() -> dict[str, tuple[bytes, str]]:
    import onnx
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import SVR

    make = onnx.helper

    def converted(model: Any, labels: Any = LABELS) -> bytes:
        options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
        return to_onnx(model.fit(ROWS, labels), ROWS[:1], options=options).SerializeToString()

    forest, linear = converted(RandomForestClassifier(2, max_depth=3, random_state=0)), converted(LogisticRegression())
    vectors = converted(SVR())

    def changed(data: bytes, change: Callable[[Any], None]) -> bytes:
        model = onnx.ModelProto.FromString(data)
        change(model)
        return model.SerializeToString()

    def attribute(key: str, place: int | None, value: Any) -> Callable[[Any], None]:
        def change(model: Any) -> None:
            for node in model.graph.node:
                for found in node.attribute:
                    if found.name == key:
                        kept = found.ints or found.floats
                        if place is None:
                            del kept[value:]
                        else:
                            kept[place] = value
                        return
            raise AssertionError(key)

        return change

    def graph(*nodes: Any, initializers: Any = (), **model: Any) -> bytes:
        value = make.make_tensor_value_info
        made = make.make_graph(
            list(nodes), "g", [value("x", 1, [None, 3])], [value("y", 1, [None, 1])], initializer=list(initializers)
        )
        opsets = [make.make_opsetid("", 21), make.make_opsetid("ai.onnx.ml", 1), make.make_opsetid("com.evil", 1)]
        return make.make_model(made, opset_imports=opsets, ir_version=10, **model).SerializeToString()

    external = onnx.TensorProto(name="w", data_type=1, dims=[3, 1], data_location=onnx.TensorProto.EXTERNAL)
    external.external_data.add(key="location", value="../../../../etc/passwd")
    short = onnx.TensorProto(name="w", data_type=1, dims=[3000, 1000], raw_data=bytes(12))
    product = make.make_node("MatMul", ["x", "w"], ["y"])
    body = make.make_graph([make.make_node("Identity", ["a"], ["b"])], "b", [], [])
    doubled = [make.make_node("Concat", [f"v{n}", f"v{n}"], [f"v{n + 1}"], axis=1) for n in range(60)]
    deep = 3000
    tree = {
        "nodes_treeids": [0] * (2 * deep + 1),
        "nodes_nodeids": list(range(2 * deep + 1)),
        "nodes_featureids": [0] * (2 * deep + 1),
        "nodes_values": [0.0] * (2 * deep + 1),
        "nodes_modes": ["BRANCH_LEQ", "LEAF"] * deep + ["LEAF"],
        "nodes_truenodeids": [n + 2 if n % 2 == 0 and n < 2 * deep else 0 for n in range(2 * deep + 1)],
        "nodes_falsenodeids": [n + 1 if n % 2 == 0 and n < 2 * deep else 0 for n in range(2 * deep + 1)],
        "target_treeids": [0], "target_nodeids": [1], "target_ids": [0], "target_weights": [1.0], "n_targets": 1,
    }  # fmt: skip
    many = onnx.helper.make_tensor("n", 7, [2], [2**20, 2**20])
    function = make.make_function("com.evil", "F", ["a"], ["b"], [make.make_node("Identity", ["a"], ["b"])], [])
    malformed = "holds malformed trees"
    return {
        "onnx_other_file": (graph(product, initializers=[external]), "lies in another file, '../../../../etc/passwd'"),
        "onnx_tensor_too_short": (graph(product, initializers=[short]), "and not its data"),
        "onnx_loop": (graph(make.make_node("Loop", ["", "", "x"], ["y"], body=body)), "ai.onnx.Loop"),
        "onnx_if": (graph(make.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)), "ai.onnx.If"),
        "onnx_graph_in_a_cast": (graph(make.make_node("Cast", ["x"], ["y"], to=1, body=body)), "Cast holds a graph"),
        "onnx_custom": (graph(make.make_node("Run", ["x"], ["y"], domain="com.evil", command="touch")), "com.evil.Run"),
        "onnx_function": (
            graph(make.make_node("F", ["x"], ["y"], domain="com.evil"), functions=[function]), "functions",
        ),
        "onnx_two_of_one_name": (graph(*[make.make_node("Abs", ["x"], ["y"])] * 2), "have one name"),
        "onnx_doubling": (
            graph(make.make_node("Identity", ["x"], ["v0"]), *doubled, make.make_node("Identity", ["v60"], ["y"])),
            "numbers for every row",
        ),
        "onnx_large_constant": (
            graph(make.make_node("ConstantOfShape", ["n"], ["y"]), initializers=[many]), "numbers for every row",
        ),
        "onnx_tree_child": (changed(forest, attribute("nodes_truenodeids", 0, 10**6)), malformed),
        "onnx_tree_cycle": (changed(forest, attribute("nodes_falsenodeids", 0, 0)), malformed),
        "onnx_tree_column": (changed(forest, attribute("nodes_featureids", 0, 10**7)), malformed),
        "onnx_tree_class": (changed(forest, attribute("class_ids", 0, 10**6)), malformed),
        "onnx_tree_leaf": (changed(forest, attribute("class_nodeids", 0, 10**6)), malformed),
        "onnx_tree_numbers": (changed(forest, attribute("nodes_nodeids", 1, 0)), malformed),
        "onnx_tree_lengths": (changed(forest, attribute("nodes_values", None, 2)), malformed),
        "onnx_tree_too_deep": (
            graph(make.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **tree)), "is deeper than",
        ),
        "onnx_linear_short": (changed(linear, attribute("coefficients", None, 2)), malformed),
        "onnx_linear_narrow": (changed(linear, attribute("coefficients", None, 4)), malformed),
        "onnx_vectors_short": (changed(vectors, attribute("support_vectors", None, 7)), malformed),
        "onnx_cut_off": (forest[: len(forest) // 2], "is no readable ONNX file, or was cut off"),
        "onnx_cut_off_early": (forest[:30], ""),
        "onnx_noise": (b"\x08\x0a" + bytes(range(256)) * 20, "is no"),
    }  # fmt: skip


def pickles(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Return pickles under the names of every format."""
    made = pickle.dumps(Canary(folder / "canary"))
    return {f"pickle.{suffix}": (made, "looks like a pickle") for suffix in ("skops", "onnx", "txt", "json", "joblib")}


def every_file(folder: Path) -> dict[str, tuple[bytes, str]]:
    """Return all hostile files, and what the message of each refusal says."""
    return {
        **pickles(folder),
        **skops_files(folder),
        **skops_shape_files(),
        **skops_reach_files(folder),
        **lightgbm_files(),
        **xgboost_files(),
        **onnx_files(),
    }


def load(path: Path) -> str:
    """Load a file as registration does, and predict with it; return how that ended."""
    from nightscore.errors import ConfigurationError
    from nightscore.registry.formats import recognise

    data = path.read_bytes()
    try:
        form = recognise(path.name, data)
        form.audit(path.name, form.describe(path.name, data))
        fitted = form.fitted(path.name, form.construct(path.name, data), ())
        fitted.predict(ROWS.astype(np.float64)[:, : fitted.count])
    except ConfigurationError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"not refused, but failed with {type(error).__name__}: {error}"
    return "accepted"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "--sing":
        pickle.loads(Path(sys.argv[2]).read_bytes()).close()
    else:
        for file in sorted(Path(sys.argv[1]).iterdir()):
            print(json.dumps([file.name, load(file)]), flush=True)
