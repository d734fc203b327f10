"""One comment of each kind on a pull request, however often a workflow runs: against a server that keeps comments."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

NUMBER = "7"


@pytest.fixture
def github(checkout):
    """What of GitHub's API the script asks for, with pages, as its documentation describes them."""
    comments, seen = [], []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content, status=200):
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self):
            seen.append((self.command, self.headers["Authorization"]))
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

        def do_GET(self):
            url = urlsplit(self.path)
            assert url.path == f"/repos/example/nightscore/issues/{NUMBER}/comments"
            query = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
            first = (query["page"] - 1) * query["per_page"]
            self.answer(comments[first : first + query["per_page"]])

        def do_POST(self):
            assert self.path == f"/repos/example/nightscore/issues/{NUMBER}/comments"
            comments.append({"id": len(comments) + 1, "user": {"type": "Bot"}, "body": self.body()})
            self.answer(comments[-1], 201)

        def do_PATCH(self):
            number = int(self.path.removeprefix("/repos/example/nightscore/issues/comments/"))
            comments[number - 1]["body"] = self.body()
            self.answer(comments[number - 1])

        def log_message(self, *_):
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    checkout.environment |= {
        "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
        "GH_TOKEN": "token",
        "NUMBER": NUMBER,
    }
    checkout.comments, checkout.seen = comments, seen
    yield checkout
    server.shutdown()
    server.server_close()


def tell(github, dev, prod):
    for environment, text in (("dev", dev), ("prod", prod)):
        folder = github.folder / f"plan-{environment}"
        folder.mkdir(exist_ok=True)
        (folder / "plan.md").write_text(text)
    done = github.run("deploy", "comment", "Comment")
    assert done.returncode == 0, done.stderr


def test_a_plan_is_told_in_one_comment_per_environment_which_later_ones_replace(github):
    github.comments.extend(
        {"id": number + 1, "user": {"type": "User"}, "body": "<!-- nightscore: terraform plan-dev -->\nI quote this"}
        for number in range(150)
    )
    tell(github, "first", "first of prod")
    tell(github, "second", "second of prod")
    assert [comment["body"] for comment in github.comments[150:]] == [
        "<!-- nightscore: terraform plan-dev -->\nsecond",
        "<!-- nightscore: terraform plan-prod -->\nsecond of prod",
    ]
    assert [method for method, _ in github.seen] == ["POST", "POST", "PATCH", "PATCH"]
    assert {token for _, token in github.seen} == {"Bearer token"}


def test_a_text_that_github_would_refuse_is_cut(github):
    tell(github, "x" * 100_000, "short")
    assert len(github.comments[0]["body"]) < 65_536
    assert "the rest is in the job's summary" in github.comments[0]["body"]


def test_the_check_of_models_is_told_likewise(github):
    (github.folder / "checked.md").write_text("# model.skops\n")
    for _ in range(2):
        done = github.run("models", "check", "Comment")
        assert done.returncode == 0, done.stderr
    assert [comment["body"] for comment in github.comments] == ["<!-- nightscore: models -->\n# model.skops\n"]


def test_an_error_of_githubs_fails_the_step(github):
    github.environment["GITHUB_REPOSITORY"] = "example/other"
    (github.folder / "checked.md").write_text("x\n")
    assert github.run("models", "check", "Comment").returncode != 0
