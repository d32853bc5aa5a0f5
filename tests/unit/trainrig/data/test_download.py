"""Downloads from a server on this machine: proven whole, or not there at all."""

from __future__ import annotations

import functools
import hashlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trainrig.data import omniglot
from trainrig.data.download import Upstream, download_file
from trainrig.data.omniglot import BASE_URL, UPSTREAM, download_omniglot, load_omniglot


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/broken.zip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 100)
            return
        super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The URL and the folder of a server that lives as long as the test."""
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "upstream"
    folder.mkdir()
    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder
        httpd.shutdown()


def published(name, data):
    return Upstream(name, len(data), hashlib.sha256(data).hexdigest())


def test_download_puts_the_file_in_place(server, tmp_path):
    url, folder = server
    (folder / "a.zip").write_bytes(b"data" * 100_000)
    target = tmp_path / "new" / "a.zip"
    download_file(f"{url}/a.zip", target, published("a.zip", b"data" * 100_000))
    assert target.read_bytes() == b"data" * 100_000
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("served", [b"datA", b"dat", b"data and more", b""])
def test_other_content_is_refused_and_leaves_nothing(server, tmp_path, served):
    url, folder = server
    (folder / "a.zip").write_bytes(served)
    target = tmp_path / "new" / "a.zip"
    with pytest.raises(ValueError, match=r"a\.zip: got .* expected 4 bytes with SHA-256"):
        download_file(f"{url}/a.zip", target, published("a.zip", b"data"))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("name", ["absent.zip", "broken.zip"])
def test_failed_transfer_leaves_nothing(server, tmp_path, name):
    url, _ = server
    target = tmp_path / "new" / name
    with pytest.raises((ConnectionError, ValueError), match=rf"{name}: (download failed|got 100)"):
        download_file(f"{url}/{name}", target, published(name, b"x" * 1000))
    assert list(target.parent.iterdir()) == []


def test_no_server_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ConnectionError, match=r"download failed .* put a\.zip in place by hand"):
        download_file("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", published("a.zip", b""))


def test_omniglot_is_fetched_once_and_read(server, tiny_root, tmp_path, monkeypatch):
    url, folder = server
    table = {}
    for split, upstream in UPSTREAM.items():
        data = (tiny_root / "omniglot-py" / upstream.name).read_bytes()
        (folder / upstream.name).write_bytes(data)
        table[split] = published(upstream.name, data)
    monkeypatch.setattr(omniglot, "UPSTREAM", table)
    root = tmp_path / "fresh"
    download_omniglot(root, base_url=url)
    bank = load_omniglot(root, complete=False)
    assert bank.sha256 == load_omniglot(tiny_root, complete=False).sha256
    for file in folder.iterdir():
        file.unlink()
    download_omniglot(root, base_url=url)  # both are there: nothing is asked for


def test_download_option_fetches_only_the_needed_split(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(omniglot, "download_file", lambda url, *rest: asked.append(url))
    with pytest.raises(FileNotFoundError):
        load_omniglot(tmp_path, split="test", download=True)
    assert asked == [f"{BASE_URL}/images_evaluation.zip"]


def test_published_table_equals_that_of_tensorflow_datasets():
    tfds = pytest.importorskip("tensorflow_datasets")
    from pathlib import Path

    table = Path(tfds.__file__).parent / "url_checksums" / "omniglot.txt"
    listed = {line.split("\t")[0]: line.split("\t")[1:3] for line in table.open()}
    for upstream in UPSTREAM.values():
        assert listed[f"{BASE_URL}/{upstream.name}"] == [str(upstream.n_bytes), upstream.sha256]
