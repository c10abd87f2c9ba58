"""Parts of public screens are brought from servers of our own that hold small trees."""

import contextlib
import hashlib
import http.server
import io
import socket
import subprocess
import threading
import time
import urllib.request
import zipfile
from pathlib import Path

import fsspec
import polars as pl
import pytest

from phenopipe.errors import UserError
from phenopipe.formats.fetched import FETCHED
from phenopipe.formats.tables import read_table
from phenopipe.screen.fetch import fetch, main, read_digests
from phenopipe.screen.fetch_config import FetchKnobs
from phenopipe.screen.transfer import expanded

MOTO = Path(__file__).parents[2] / ".venv" / "others" / "bin" / "moto_server"
PNG = bytes(range(256)) * 40


def image(plate, well, channel):
    return f"{plate} {well} {channel} ".encode() + PNG


TREE = {
    f"images/{experiment}/Plate{plate}/{well}_s1_w{channel}.png": image(plate, well, channel)
    for experiment in ("HUVEC-01", "HUVEC-02")
    for plate in (1, 2)
    for well in ("B02", "B03")
    for channel in (1, 2)
} | {"metadata.csv": b"site_id,well_id\n"}
FILES = ("metadata.csv", "images/{experiment}/Plate{plate}/{well}_s1_w{channel}.png")
PART = {"experiments": ("HUVEC-01",), "plates": ("1",), "wells": ("B02",), "channels": ("2",)}


class Server(http.server.ThreadingHTTPServer):
    """Serves a tree with ranges, writes down what it is asked, fails when it is told to."""

    def __init__(self, tree):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tree, self.asked, self.failing, self.cutting = dict(tree), [], 0, 0
        self.ranges = True
        self.url = f"http://127.0.0.1:{self.server_port}"

    def contents(self):
        return [(path, span) for method, path, span in self.asked if method == "GET"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path, span = self.path.lstrip("/"), self.headers.get("Range")
        self.server.asked.append((self.command, path, span))
        content = self.server.tree.get(path)
        if content is None:
            return self.send_error(404)
        if self.server.failing > 0:
            self.server.failing -= 1
            return self.send_error(503)
        status = 200
        if span and body and self.server.ranges:
            first, last = span.removeprefix("bytes=").split("-")
            content, status = content[int(first) : int(last) + 1], 206
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", hashlib.sha1(self.server.tree[path]).hexdigest())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.server.cutting > 0:
            self.server.cutting -= 1
            content = content[: len(content) // 2]
            self.close_connection = True
        if body:
            self.wfile.write(content)
        return None


@pytest.fixture
def server():
    with Server(TREE) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture(autouse=True)
def no_rests(monkeypatch):
    monkeypatch.setattr("phenopipe.screen.transfer.FIRST_WAIT_S", 0.01)


def knobs(server, folder, **changed):
    settings = {"home": server.url, "files": FILES, "folder": str(folder), **PART, **changed}
    return FetchKnobs(**settings)


def tree_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_part_that_is_named_comes_and_nothing_else(server, tmp_path):
    flags = knobs(server, tmp_path / "rxrx1").as_flags()
    main([*flags, "--fetched", str(tmp_path / "fetched.parquet"), "--screen", "rxrx1"])
    wanted = ["images/HUVEC-01/Plate1/B02_s1_w2.png", "metadata.csv"]
    assert tree_of(tmp_path / "rxrx1") == {name: TREE[name] for name in wanted}
    told = read_table(tmp_path / "fetched.parquet", FETCHED)
    assert told["path"].to_list() == wanted
    assert told["sha256"].to_list() == [
        hashlib.sha256(TREE[name]).hexdigest() for name in wanted
    ]
    assert {path for path, _ in server.contents()} == set(wanted)


def test_what_is_there_is_not_brought_again(server, tmp_path):
    fetch(knobs(server, tmp_path), {})
    server.asked.clear()
    brought = fetch(knobs(server, tmp_path), {})
    assert len(brought) == 2 and not server.contents()


def test_a_killed_transfer_goes_on_where_it_stopped(server, tmp_path):
    one = knobs(server, tmp_path, piece_mb=0.001, tries=1)
    name = "images/HUVEC-01/Plate1/B02_s1_w2.png"
    server.cutting = 1
    with pytest.raises(UserError, match="1 of 2 files were not brought"):
        fetch(one, {})
    # Cut in its first piece, or in the one piece of the table: one of both is whole.
    whole = [path for path in tree_of(tmp_path) if not Path(path).name.startswith(".")]
    assert len(whole) == 1
    (tmp_path / name).unlink(missing_ok=True)
    with contextlib.suppress(UserError):
        server.failing = 0
        stop = knobs(server, tmp_path, piece_mb=0.001, tries=1, files=(name,))
        _cut_after(server, 4, stop)
    (part,) = (tmp_path / name).parent.glob(".*.part")
    have = part.stat().st_size
    assert 0 < have < len(TREE[name])
    server.asked.clear()
    fetch(one, {})
    assert (tmp_path / name).read_bytes() == TREE[name]
    spans = [span for path, span in server.contents() if path == name]
    assert spans[0] == f"bytes={have}-{have + 999}"
    assert not list(tmp_path.rglob("*.part"))


def _cut_after(server, pieces, one):
    """Let a transfer fail after some of its pieces."""
    answer = Handler.answer

    def fail(self, body):
        if body and len(self.server.contents()) >= pieces:
            self.server.failing = 1
        return answer(self, body)

    server.asked.clear()
    Handler.answer = fail
    try:
        fetch(one, {})
    finally:
        Handler.answer = answer


def test_a_server_without_ranges_sends_a_file_once(server, tmp_path):
    server.ranges = False
    fetch(knobs(server, tmp_path, piece_mb=0.001), {})
    name = "images/HUVEC-01/Plate1/B02_s1_w2.png"
    assert (tmp_path / name).read_bytes() == TREE[name]
    assert len(server.contents()) == 2


def test_pieces_of_two_versions_are_never_joined(server, tmp_path):
    name = "metadata.csv"
    one = knobs(server, tmp_path, files=(name,))
    (tmp_path / ".metadata.csv.00000000.part").write_bytes(b"old")
    server.tree[name] = b"another table\n"
    fetch(one, {})
    assert (tmp_path / name).read_bytes() == b"another table\n"


def test_a_server_that_stumbles_is_asked_again(server, tmp_path):
    server.failing = 3
    fetch(knobs(server, tmp_path), {})
    server.cutting = 2
    fetch(knobs(server, tmp_path, plates=("2",)), {})
    assert len(tree_of(tmp_path)) == 3
    server.failing = 50
    with pytest.raises(UserError, match="503"):
        fetch(knobs(server, tmp_path, plates=("1", "2"), wells=("B03",), tries=2), {})


def test_a_file_with_another_digest_is_removed_and_the_others_come(server, tmp_path):
    table = tmp_path / "digests.csv"
    name = "images/HUVEC-01/Plate1/B02_s1_w2.png"
    good = hashlib.sha256(TREE["metadata.csv"]).hexdigest()
    table.write_text(f"path,sha256\n{name},{'0' * 64}\nmetadata.csv,{good}\n")
    with pytest.raises(UserError, match=f"{name}: sha256 .*, wanted 0000.*; removed"):
        fetch(knobs(server, tmp_path / "rxrx1"), read_digests(table))
    assert set(tree_of(tmp_path / "rxrx1")) == {"metadata.csv"}
    (tmp_path / "wrong.csv").write_text("file,sha256\n")
    with pytest.raises(UserError, match=r"wrong\.csv: no column 'path'"):
        read_digests(tmp_path / "wrong.csv")


def test_more_than_was_agreed_to_is_refused_before_anything_comes(server, tmp_path):
    with pytest.raises(UserError, match=r"2 files, .* GB, more than max_gb = 1e-06"):
        fetch(knobs(server, tmp_path, max_gb=1e-6), {})
    assert not server.contents() and not tree_of(tmp_path)


def test_an_absent_file_and_a_name_without_words_are_told(server, tmp_path):
    with pytest.raises(UserError, match=r"no file images/HUVEC-09/.*png"):
        fetch(knobs(server, tmp_path, experiments=("HUVEC-09",)), {})
    with pytest.raises(UserError, match=r"\{plate\} in .* and no words for it"):
        fetch(knobs(server, tmp_path, plates=()), {})
    with pytest.raises(UserError, match=r"\{platte\} in 'x/\{platte\}', wanted one of"):
        expanded("x/{platte}", {"plate": ["1"]})


def test_a_path_cannot_leave_the_folder(server, tmp_path):
    server.tree["../outside.csv"] = b"x"
    (tmp_path / "inside").mkdir()
    memory = fsspec.filesystem("memory")
    memory.pipe("/home/../outside.csv", b"x")
    with pytest.raises(UserError):
        fetch(knobs(server, tmp_path / "inside", files=("../outside.csv",)), {})
    assert not (tmp_path / "outside.csv").exists()


@pytest.mark.parametrize("start", ["", "://rxrx1"], ids=["whole", "folder"])
def test_of_an_archive_only_the_chosen_members_are_read(server, tmp_path, start):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in TREE.items():
            file.writestr(f"rxrx1/{name}", content)
        file.writestr("rxrx1/images/HUVEC-01/Plate9/B02_s1_w1.png", PNG * 2000)
    server.tree = {"rxrx1-images.zip": archive.getvalue()}
    top = "" if start else "rxrx1/"
    one = knobs(
        server,
        tmp_path,
        home=f"zip{start}::{server.url}/rxrx1-images.zip",
        files=(top + "images/{experiment}/Plate{plate}/*_w{channel}.png",),
    )
    brought = fetch(one, {})
    names = [f"images/HUVEC-01/Plate1/{well}_s1_w2.png" for well in ("B02", "B03")]
    assert {x.path for x in brought} == {top + name for name in names}
    assert (tmp_path / top / names[0]).read_bytes() == TREE[names[0]]
    spans = [span.removeprefix("bytes=").split("-") for _, span in server.contents() if span]
    assert spans
    assert sum(int(b) - int(a) for a, b in spans) < len(archive.getvalue())


@pytest.fixture(scope="module")
def bucket():
    """An S3 server with a small tree in the layout of the Cell Painting Gallery."""
    if not MOTO.exists():
        pytest.skip("no .venv/others, which make test installs")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    running = subprocess.Popen(
        [MOTO.parent / "python", "-I", "-m", "moto.server", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(endpoint):
                break
            time.sleep(0.1)
        store = fsspec.filesystem("s3", key="test", secret="test", endpoint_url=endpoint)
        store.mkdir("gallery")
        base = "gallery/cpg0016-jump/source_4"
        for plate in ("BR1", "BR2"):
            table = f"{base}/workspace/load_data_csv/2021_04_26_Batch1/{plate}/load_data.csv"
            store.pipe(table, b"URL_OrigDNA\n")
            for row, column, field in ((1, 1, 1), (1, 2, 1), (2, 1, 1)):
                name = f"r{row:02d}c{column:02d}f{field:02d}p01-ch5.tiff"
                images = f"{base}/images/2021_04_26_Batch1/images/{plate}__2021/Images"
                store.pipe(f"{images}/{name}", f"{plate} {name}".encode())
        for path in store.find("gallery"):
            store.chmod(path, "public-read")
        store.chmod("gallery", "public-read")
        yield endpoint
    finally:
        running.terminate()
        running.wait()


def test_plates_and_wells_of_a_bucket_come_by_their_patterns(bucket, tmp_path):
    one = FetchKnobs(
        home="s3://gallery/cpg0016-jump",
        endpoint=bucket,
        folder=str(tmp_path),
        files=(
            "source_4/workspace/load_data_csv/{experiment}/{plate}/load_data.csv",
            "source_4/images/{experiment}/images/{plate}__*/Images/r{row}c{column}f01*.tiff",
        ),
        experiments=("2021_04_26_Batch1",),
        plates=("BR2",),
        wells=("A02",),
        tries=2,
    )
    brought = fetch(one, {})
    image = "source_4/images/2021_04_26_Batch1/images/BR2__2021/Images/r01c02f01p01-ch5.tiff"
    table = "source_4/workspace/load_data_csv/2021_04_26_Batch1/BR2/load_data.csv"
    assert {x.path for x in brought} == {image, table}
    assert {x.checked for x in brought} == {"md5"}
    assert (tmp_path / image).read_bytes() == b"BR2 r01c02f01p01-ch5.tiff"
    # What was altered on this side is not what the bucket tells of it.
    (tmp_path / image).write_bytes(b"BR2 r01c02f01p01-ch6.tiff")
    with pytest.raises(UserError, match=r"ch5\.tiff: md5 .*, wanted .*; removed"):
        fetch(one, {})
    assert len(fetch(one, {})) == 2


def test_a_sheet_of_digests_may_be_parquet(tmp_path):
    pl.DataFrame({"path": ["a"], "sha256": ["b"]}).write_parquet(tmp_path / "d.parquet")
    assert read_digests(tmp_path / "d.parquet") == {"a": "b"}
