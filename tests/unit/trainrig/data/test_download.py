"""Downloads from a server on this machine: proven whole, or not there at all."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainrig.data import catalogue, fetch
from trainrig.data.catalogue import get_data_set
from trainrig.data.download import Upstream, download_file
from trainrig.data.fetch import get
from trainrig.data.omniglot import load_omniglot
from trainrig.data.published_files import FileFacts
from trainrig.data.verify import verify


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
    with pytest.raises(ConnectionError, match=r"download failed .* put a\.zip into .* by hand"):
        download_file("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", published("a.zip", b""))


def declare(monkeypatch, name, **fields):
    """Put another entry of this name into the catalogue."""
    changed = dataclasses.replace(get_data_set(name), **fields)
    others = [one for one in catalogue.DATA_SETS if one.name != name]
    monkeypatch.setattr(catalogue, "DATA_SETS", (changed, *others))
    return changed


def test_omniglot_is_fetched_once_and_read(server, tiny_root, tmp_path, monkeypatch):
    url, folder = server
    files = []
    for file in get_data_set("omniglot").files:
        data = (tiny_root / "omniglot-py" / file.name).read_bytes()
        (folder / file.name).write_bytes(data)
        files.append(published(file.name, data))
    declare(monkeypatch, "omniglot", url=url, files=files)
    root = tmp_path / "fresh"
    get("omniglot", root)
    bank = load_omniglot(root, complete=False)
    assert bank.sha256 == load_omniglot(tiny_root, complete=False).sha256
    for file in folder.iterdir():
        file.unlink()
    assert get("omniglot", root).startswith("already in")  # nothing is asked for


def test_download_option_fetches_only_the_needed_split(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(fetch, "download_file", lambda url, *rest, **_: asked.append(url))
    with pytest.raises(FileNotFoundError):
        load_omniglot(tmp_path, split="test", download=True)
    assert asked == [f"{get_data_set('omniglot').url}/images_evaluation.zip"]


def test_archive_is_fetched_proven_and_unpacked_whole(server, tmp_path, monkeypatch):
    url, folder = server
    original = get_data_set("cifar100")
    contents = {"train": b"pictures", "test": b"more"}
    with tarfile.open(folder / "cifar-100-python.tar.gz", "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    data = (folder / "cifar-100-python.tar.gz").read_bytes()
    files = [published("cifar-100-python.tar.gz", data)]
    copies = {"toy": {name: facts_of(content) for name, content in contents.items()}}
    declared = declare(monkeypatch, "cifar100", url=url, files=files, copies=copies)
    get("cifar100", tmp_path / "data")
    assert verify(declared, tmp_path / "data").startswith("toy copy, whole")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-100-python"]
    (tmp_path / "data/cifar-100-python/test").unlink()  # completed, and what is there is kept
    (tmp_path / "data/cifar-100-python/train").write_bytes(b"mine")
    get("cifar100", tmp_path / "data")
    assert (tmp_path / "data/cifar-100-python/test").read_bytes() == b"more"
    with pytest.raises(ValueError, match="train: 4 bytes; expected 8"):
        verify(declared, tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="cifar100 is not there"):
        verify(original, tmp_path / "elsewhere")


def facts_of(content):
    return FileFacts(len(content), hashlib.sha256(content).hexdigest())


def test_of_two_files_of_one_name_the_published_one_is_taken(tmp_path, monkeypatch):
    source = tmp_path / "source"
    for folder, content in (("a", b"other set"), ("b", b"this set")):
        (source / folder).mkdir(parents=True)
        (source / folder / "x.gz").write_bytes(content)
    fields = {
        "parts": (("x.gz", "x"),),
        "copies": {"toy": {"x.gz": facts_of(b"this set")}},
        "files": [published("x.gz", b"this set")],
    }
    declare(monkeypatch, "mnist", **fields)
    get("mnist", tmp_path / "data", source)
    assert (tmp_path / "data/MNIST/raw/x.gz").read_bytes() == b"this set"


def test_published_tables_equal_those_of_tensorflow_datasets():
    tfds = pytest.importorskip("tensorflow_datasets")
    root = Path(tfds.__file__).parent
    listed = {}
    for path in (*root.glob("url_checksums/*.txt"), *root.glob("datasets/*/checksums.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines():
            url, *facts = line.split("\t")
            if len(facts) >= 2:
                listed[url] = (int(facts[0]), facts[1])
    compared = 0
    for data_set in catalogue.DATA_SETS:
        for file in data_set.files:
            known = listed.get(f"{data_set.url}/{file.name}")
            compared += known is not None
            assert known in (None, (file.n_bytes, file.sha256)), file.name
    assert compared >= 12  # all but the Python versions of CIFAR, which it does not use
