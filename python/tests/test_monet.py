"""The readers against each other, against SQL, and against the command's own output."""

import sqlite3

import numpy as np
import pytest

import monet


def test_index_holds_what_the_database_says(made):
    with monet.Index(made / "index.sqlite") as index:
        database = sqlite3.connect(made / "index.sqlite")
        assert len(index) == database.execute("SELECT count(*) FROM expert").fetchone()[0] == len(list(index))
        assert index.labels == {"label": ["sea", "law"]}
        statistics = index.statistics()
        assert len(statistics) == len(index)
        found = index.find(min_count=1, limit=10)
        assert [entry.frequency for entry in found] == sorted((e.frequency for e in found), reverse=True)
        strongest = index.expert(found[0].expert)
        assert strongest.count == round(found[0].frequency * int(index.metadata["tokens"]))
        assert strongest.histogram.sum() == strongest.count
        assert strongest.contexts and strongest.top_tokens
        for context in strongest.contexts:
            assert 0 < context.score <= strongest.max and context.token == context.tokens[context.place]
        sea = index.find(label="sea", min_count=1, limit=1000)
        assert sea and all(e.ratio >= f.ratio for e, f in zip(sea, sea[1:]))
        for entry in sea[:20]:
            means = index.expert(entry.expert).label_means
            assert means["sea"] >= means["law"]
        assert index.find(token="sea", min_count=1) and all(e.share for e in index.find(token="sea", min_count=1))
        silent = next(
            f"0/{unit}" for unit in range(index.units_per_group)
            if not database.execute("SELECT 1 FROM expert WHERE router_group = 0 AND expert = ?", (unit,)).fetchone())
        assert index.expert(silent).count == 0


def test_index_errors_name_what_is_wrong(made, tmp_path):
    with monet.Index(made / "index.sqlite") as index:
        with pytest.raises(ValueError, match="GROUP/INDEX"):
            index.expert("seven")
        with pytest.raises(ValueError, match="expected 0/0 to"):
            index.expert("99/0")
        with pytest.raises(ValueError, match="the labels are sea, law"):
            index.find(label="food")
    with pytest.raises(FileNotFoundError):
        monet.Index(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("not a database at all, only text" * 100)
    with pytest.raises(monet.IndexFormatError):
        monet.Index(tmp_path / "text.sqlite")
    sqlite3.connect(tmp_path / "empty.sqlite").execute("CREATE TABLE a (b)").connection.commit()
    with pytest.raises(monet.IndexFormatError, match="another kind"):
        monet.Index(tmp_path / "empty.sqlite")


def test_activations_agree_between_formats_and_with_the_index(made):
    plain, archive, half = (monet.Activations(made / name) for name in ("plain", "npz", "half"))
    assert plain.is_complete and len(plain) == len(plain.tokens)
    assert np.array_equal(plain.tokens, archive.tokens)
    for hook in plain.hooks:
        values = plain.hook(hook)
        assert len(values) == len(plain) and np.array_equal(values, archive.hook(hook))
        assert np.allclose(values, half.hook(hook), rtol=2**-8, atol=1e-6)
    assert plain.hook("blocks.0.attn.hook_z").ndim == 3
    scores = plain.scores()
    assert np.array_equal(scores.score, archive.scores().score) and (scores.score > 0).all()
    with monet.Index(made / "index.sqlite") as index:
        statistics = index.statistics()
        assert len(plain) == int(index.metadata["tokens"])
        keys = scores.group.astype(np.int64) * index.units_per_group + scores.unit
        sums, counts = np.bincount(keys, scores.score), np.bincount(keys)
        for row in statistics[:: max(1, len(statistics) // 200)]:
            key = row["group"] * index.units_per_group + row["expert"]
            assert counts[key] == row["count"]
            assert sums[key] / len(plain) == pytest.approx(row["mean"], rel=1e-5)
    units = [f"{scores.group[0]}/{scores.unit[0]}", "0/0"]
    matrix = plain.matrix(units)
    assert matrix.shape == (len(plain), 2) and matrix[scores.token[0], 0] == scores.score[0]
    documents = list(plain.documents())
    assert [document.number for document in documents] == list(range(len(documents)))
    assert np.array_equal(np.concatenate([document.tokens for document in documents]), plain.tokens)
    with pytest.raises(KeyError, match="which has"):
        plain.hook("blocks.9.hook_resid_post")


def test_traces(made):
    trace = monet.Trace.load(made / "trace.json")
    token = trace.tokens[3]
    expert, score = token.experts(0)[0]
    assert trace.matrix(expert)[3] == np.float32(score) and token.active(0) >= 1
    with pytest.raises(ValueError, match="no trace"):
        monet.Trace({})


def test_client(made, server):
    client = monet.Client(server)
    assert client.models() == ["model"]
    whole = client.complete("The sea", max_tokens=8, seed=3)
    assert "".join(client.stream("The sea", max_tokens=8, seed=3)) == whole.text
    expert = client.experts(limit=1)[0]["expert"]
    edited = client.complete(
        "The sea", max_tokens=0, echo=True, logprobs=0, strengths={expert: 0},
        monet={"unit_scores": [expert]})
    before = client.complete("The sea", max_tokens=0, echo=True, logprobs=0, monet={"unit_scores": [expert]})

    def scores(completion):
        return [unit["score"] for units in completion.choice["monet"]["units"] for unit in units]

    assert set(scores(edited)) == {0} and max(scores(before)) > 0
    assert client.expert(expert)["expert"] == expert and client.fired("the sea", limit=3)
    assert client.tokenize("the sea")
    with pytest.raises(monet.ServerError, match="400") as error:
        client.complete("x", temperature="hot")
    assert error.value.param == "temperature"


def test_graphs_and_interventions(made, server):
    client = monet.Client(server)
    found = client.graph("The sea", nodes=20)
    nodes = found["graph"]["nodes"]
    strongest = max((node for node in nodes if node["unit"]), key=lambda node: abs(node["contribution"]))
    test = client.intervene("The sea", strongest["node_id"], nodes=20)
    assert test["predicted"] == pytest.approx(-strongest["contribution"], rel=1e-4)
    assert {"measured", "patterns_held", "routing_held", "all_held"} <= set(test)
    with pytest.raises(monet.ServerError, match="no node") as error:
        client.intervene("The sea", "9_9_9", nodes=20)
    assert error.value.param == "source"
    steered = client.complete("The sea", max_tokens=4, seed=1, monet={"replace": [{"hook": "blocks.0.hook_mlp_out"}]})
    assert steered.text != client.complete("The sea", max_tokens=4, seed=1).text
