"""Labels of people: the file, the page that makes it, and the judge that reads it."""

from __future__ import annotations

import csv
import http.client
import json
import threading

import numpy as np
import pytest
from hostile import HOSTILE

from negbench.errors import ConfigError, DataError, MissingError
from negbench.generators.base import Drawn
from negbench.judges import Question, build_judge
from negbench.judges.ask import ask
from negbench.judges.label_file import COLUMNS, LabelWriter, read_labels
from negbench.judges.labeling import BLOCK, LabelServer, Sitting, plan_tasks
from negbench.judges.units import Picture, Unit
from negbench.store import ImageStore
from negbench.types import Guidance, ImageRequest, Ref, Treatment


def digest(number: int) -> str:
    return f"{number:064x}"


def unit(number: int, *, same: bool = False, concept: str = "hat") -> Unit:
    twin = Picture(f"k{number}", digest(2 * number))
    treated = twin if same else Picture(f"t{number}", digest(2 * number + 1))
    return Unit(
        run="a" * 12, label="m", case=f"case {number}", replicate=0, seed=number,
        prompt=f"prompt {number}", concept=concept, tags=(),
        pictures={"twin": twin, "treated": treated},
    )  # fmt: skip


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_order_is_shuffled_seeded_and_leaves_whole_units():
    units = [unit(i) for i in range(60)]
    tasks = plan_tasks(units, arms=("twin", "treated"), count=50, seed=1)
    assert len(tasks) == 100
    again = plan_tasks(units[::-1], arms=("twin", "treated"), count=50, seed=1)
    assert [t.image for t in again] == [t.image for t in tasks]
    other = plan_tasks(units, arms=("twin", "treated"), count=50, seed=2)
    assert [t.image for t in other] != [t.image for t in tasks]
    first = tasks[: 2 * BLOCK]
    cases = [task.places[0]["case"] for task in first]
    assert all(cases.count(case) == 2 for case in cases)
    arms = [task.places[0]["arm"] for task in first]
    assert 0.3 < arms[:BLOCK].count("twin") / BLOCK < 0.7
    fewer = plan_tasks(units, arms=("twin",), count=10, seed=1)
    more = plan_tasks(units, arms=("twin",), count=20, seed=1)
    assert {t.image for t in fewer} <= {t.image for t in more}
    with pytest.raises(ConfigError, match="no arm 'placebo'; it has twin, treated"):
        plan_tasks(units, arms=("placebo",), count=None, seed=0)


def test_equal_pictures_are_labelled_once_for_all_places(tmp_path):
    tasks = plan_tasks([unit(1, same=True)], arms=("twin", "treated"), count=None, seed=0)
    assert len(tasks) == 1
    sitting = Sitting(tasks, tmp_path / "l.csv", rater="me")
    sitting.answer(0, "yes")
    sitting.close()
    assert [row["arm"] for row in rows(tmp_path / "l.csv")] == ["twin", "treated"]


def test_a_sitting_goes_on_and_its_last_answer_counts(tmp_path):
    path = tmp_path / "sub" / "l.csv"
    tasks = plan_tasks([unit(i) for i in range(3)], arms=("twin", "treated"), count=None, seed=0)
    sitting = Sitting(tasks, path, rater="a,b\n")
    for n, answer in ((0, "yes"), (1, "unsure"), (0, "no"), (2, "yes")):
        sitting.answer(n, answer)
    assert sitting.following(0) == 3
    sitting.close()
    with path.open("ab") as file:
        file.write(b"torn,ro")
    again = Sitting(tasks, path, rater="a,b\n")
    assert again.answers == {0: "no", 1: "unsure", 2: "yes"}
    again.answer(3, "yes")
    again.close()
    labels = read_labels(path)
    assert labels.present(tasks[0].image, "hat") is False
    assert labels.present(tasks[1].image, "hat") is None
    assert labels.unsure == 1
    assert len(rows(path)) == 5
    other = Sitting(tasks, path, rater="somebody else")
    assert other.answers == {}
    other.close()
    stranger = tmp_path / "notes.csv"
    stranger.write_text("my,notes\n")
    with pytest.raises(DataError, match="no file of labels"):
        Sitting(tasks, stranger, rater="x")
    assert stranger.read_text() == "my,notes\n"


def test_raters_are_counted_and_split_votes_decide_nothing(tmp_path):
    path = tmp_path / "l.csv"
    writer = LabelWriter(path)
    blank = dict.fromkeys(COLUMNS, "")
    said = [("a", "1", 1), ("b", "0", 1), ("a", "1", 2), ("b", "1", 2), ("c", "0", 2), ("a", "", 3)]
    for rater, present, number in said:
        row = {"image": digest(number), "concept": "hat", "present": present, "rater": rater}
        writer.append([{**blank, **row}])
    writer.close()
    labels = read_labels(path)
    assert labels.share(digest(1), "hat") == 0.5
    assert labels.present(digest(1), "hat") is None
    assert labels.present(digest(2), "hat") is True
    judge = build_judge("labels", {"path": str(path)})
    pixels = np.zeros((2, 2, 3), dtype=np.uint8)
    found = ask(judge, [Question(digest(n), pixels, "hat") for n in (1, 2, 3)], cache=tmp_path)
    assert [v.probability for v in found] == [0.5, pytest.approx(2 / 3), None]
    assert found[2].unscored == "nobody labelled this picture"
    with pytest.raises(ConfigError, match="which file"):
        build_judge("labels")
    with pytest.raises(MissingError, match="no file"):
        build_judge("labels", {"path": str(tmp_path / "none.csv")})


def test_files_of_others_are_matched_by_case_seed_and_arm(tmp_path):
    path = tmp_path / "verdicts.csv"
    path.write_text("case,seed,concept,arm,present,count\nc,7,hat,none,yes,1\nc,8,hat,none,no,1\n")
    places = {("c", "7", "twin"): digest(1)}
    labels = read_labels(path, places=places)
    assert labels.present(digest(1), "hat") is True
    assert labels.unmatched == 1
    with pytest.raises(DataError, match="the runs are needed"):
        read_labels(path)
    with pytest.raises(DataError, match="line 2: several of the runs"):
        read_labels(path, places={("c", "7", "twin"): ""})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image,concept\n", "no column present"),
        ("image,concept,present\nxyz,hat,1\n", "line 2: image is no sha256"),
        (f"image,concept,present\n{'0' * 64},hat,maybe\n", "line 2: present is 'maybe'"),
        (f"image,concept,present\n{'0' * 64},hat\n", "line 2: 2 cells where the header has 3"),
        ('image,concept,present\n"x', "line 2: not valid CSV"),
    ],
)
def test_bad_files_are_told_with_their_line(tmp_path, text, message):
    path = tmp_path / "l.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_labels(path)


def keep_pictures(store: ImageStore, count: int, concepts) -> list[Unit]:
    units = []
    for number in range(count):
        pictures = {}
        for arm in ("twin", "treated"):
            value = 40 * number + (20 if arm == "treated" else 0)
            pixels = np.full((8, 8, 3), value, dtype=np.uint8)
            request = ImageRequest(
                generator=Ref(name="g"),
                treatment=Treatment(prompt=f"{number} {arm}", guidance=Guidance()),
                seed=number,
            )
            drawn = Drawn(key=request.key(), pixels=pixels, evaluations=1, facts={})
            stored = store.put(drawn, request, provenance={})
            pictures[arm] = Picture(stored.key, stored.image)
        units.append(
            Unit("a" * 12, "m", f"case {number}", 0, number, f"p {number}",
                 concepts[number % len(concepts)], (), pictures)
        )  # fmt: skip
    return units


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(count=3, concepts=("hat",)):
        store = ImageStore(tmp_path / "cache")
        units = keep_pictures(store, count, concepts)
        tasks = plan_tasks(units, arms=("twin", "treated"), count=None, seed=0)
        sitting = Sitting(tasks, tmp_path / "labels.csv", rater="me")
        server = LabelServer(sitting, store)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        started.append((server, sitting, thread))
        return server

    yield start
    for server, sitting, thread in started:
        server.shutdown()
        server.server_close()
        sitting.close()
        thread.join()


def fetch(server, path, *, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    method = "GET" if body is None else "POST"
    connection.request(method, path, body=body, headers=given)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, dict(response.getheaders()), data


def test_the_server_answers_only_its_own_page(serve):
    server = serve()
    base = f"/{server.token}/"
    answer = json.dumps({"n": 0, "answer": "yes"})
    kind = {"content_type": "application/json"}
    assert server.server_address[0] == "127.0.0.1"
    assert fetch(server, base)[0] == 200
    for path in ("/", "/x/", f"/{server.token}", f"/{server.token}x/", "/../../etc/passwd"):
        assert fetch(server, path)[0] == 404
    refused = [
        (base, {"host": "evil.example"}, 403),
        (f"{base}state", {"origin": "https://evil.example"}, 403),
        (f"{base}state", {"sec_fetch_site": "cross-site"}, 403),
        (f"{base}image/99", {}, 404),
        (f"{base}image/-1", {}, 404),
        (f"{base}image/../../x", {}, 404),
    ]
    for path, headers, status in refused:
        assert fetch(server, path, **headers)[0] == status
    posts = [
        ({"content_type": "text/plain"}, answer, 415),
        ({**kind, "origin": "null"}, answer, 403),
        ({**kind, "origin": f"http://localhost:{server.port + 1}"}, answer, 403),
        (kind, "x" * 2000, 413),
        (kind, "[]", 400),
        (kind, '{"n": 0, "answer": "maybe"}', 400),
        (kind, '{"n": true, "answer": "yes"}', 400),
        (kind, '{"n": 6, "answer": "yes"}', 400),
    ]
    for headers, body, status in posts:
        assert fetch(server, f"{base}answer", body=body, **headers)[0] == status
    assert server.sitting.answers == {}
    own = f"http://127.0.0.1:{server.port}"
    status, _, data = fetch(server, f"{base}answer", body=answer, **kind, origin=own)
    assert (status, json.loads(data)["n"], server.sitting.answers) == (200, 1, {0: "yes"})


def test_what_is_sent_is_blind_and_comes_from_here(serve):
    server = serve()
    _, headers, page = fetch(server, f"/{server.token}/")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in {k.lower(): v for k, v in headers.items() if "Python" in v}
    for part in ("", "page.css", "page.js"):
        text = fetch(server, f"/{server.token}/{part}")[2].decode()
        assert "//" not in text.replace("// ", "")
    state = fetch(server, f"/{server.token}/state")[2].decode()
    image = fetch(server, f"/{server.token}/image/0")
    assert image[2].startswith(b"\x89PNG")
    for word in ("twin", "treated", "case", server.sitting.tasks[0].image[:12], "prompt"):
        assert word not in state + page.decode() + str(image[1])


def test_labels_reach_the_disk_one_by_one(serve, tmp_path):
    server = serve(2)
    kind = {"content_type": "application/json"}
    for n, answer in enumerate(("yes", "no", "unsure", "yes")):
        body = json.dumps({"n": n, "answer": answer})
        state = json.loads(fetch(server, f"/{server.token}/answer", body=body, **kind)[2])
        assert len(rows(tmp_path / "labels.csv")) == n + 1
    assert state == {
        "n": None, "total": 4, "labelled": 4, "concept": None, "answer": None, "previous": 3,
        "following": None,
    }  # fmt: skip
    back = json.loads(fetch(server, f"/{server.token}/state/2")[2])
    assert (back["answer"], back["previous"]) == ("unsure", 1)


@pytest.mark.slow
def test_a_person_labels_with_the_keyboard(serve, visit, tmp_path):
    from playwright.sync_api import expect

    expect.set_options(timeout=60_000)
    texts = [text for text in HOSTILE.values() if "__pwned" in text and text.isprintable()]
    server = serve(3, texts)
    page = visit(server.url)
    count = page.locator("#count")
    expect(count).to_have_text("0 of 6 pictures labelled")
    for number, key in enumerate("ynuyn", start=1):
        page.keyboard.press(key)
        expect(count).to_have_text(f"{number} of 6 pictures labelled")
    page.keyboard.press("b")
    expect(page.locator("#before")).to_contain_text("You said: no")
    page.get_by_role("button", name="Yes").click()
    expect(page.locator("#before")).to_have_text("")
    page.keyboard.press("y")
    expect(page.locator("#concept")).to_contain_text("All pictures are labelled")
    expect(page.get_by_role("button", name="Yes")).to_be_disabled()
    said = [row["present"] for row in rows(tmp_path / "labels.csv")]
    assert said == ["1", "0", "", "1", "0", "1", "1"]
