"""Bring files of one home to one folder: in pieces, resumed where they stopped, checked.

A home is what fsspec opens: ``https://``, ``s3://`` (anonymously), a folder, or an archive
there (``zip::https://...``), of which only the chosen members are read.
"""

import hashlib
import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple, TypeVar

from fsspec.core import url_to_fs

from phenopipe.errors import UserError, reason
from phenopipe.formats.files import inside

T = TypeVar("T")
# Seconds before the first repetition; doubled each time.
FIRST_WAIT_S = 0.5
MD5 = re.compile(r"[0-9a-f]{32}")


class Remote(NamedTuple):
    """A file of a home.

    Attributes
    ----------
    path : str
        Under the home, and under the folder that it is brought to.
    address : str
        Where fsspec finds it.
    size : int or None
        Bytes, if the home says so.
    version : str
        What changes when the file does, if the home says so.
    md5 : str or None
        Digest that the home tells of it.
    """

    path: str
    address: str
    size: int | None
    version: str
    md5: str | None


class Brought(NamedTuple):
    """A file that lies in its place: its digest, and what that was held against."""

    path: str
    size: int
    sha256: str
    checked: str | None


def expanded(pattern: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    """Write out the names in braces of a pattern, every combination.

    Raises
    ------
    UserError
        If a name is unknown, or none of its words is given.

    Examples
    --------
    >>> expanded("images/{plate}/*_w{channel}.png", {"plate": ["1", "2"], "channel": ["6"]})
    ['images/1/*_w6.png', 'images/2/*_w6.png']
    """
    names = list(dict.fromkeys(name for _, name, _, _ in Formatter().parse(pattern) if name))
    for name in names:
        if name not in words:
            raise UserError(f"{{{name}}} in {pattern!r}, wanted one of {sorted(words)}")
        if not words[name]:
            raise UserError(f"{{{name}}} in {pattern!r} and no words for it")
    combined = itertools.product(*(words[name] for name in names))
    return [pattern.format(**dict(zip(names, one, strict=True))) for one in combined]


class Home:
    """Where a screen's files are published.

    Parameters
    ----------
    url : str
        The folder, bucket with prefix, or archive.
    endpoint : str, optional
        Another S3 server than the usual one.
    tries : int
        Times that a request is made before it counts as failed.
    pause_s : float
        Seconds of rest after each request.
    """

    def __init__(
        self, url: str, *, endpoint: str | None = None, tries: int = 5, pause_s: float = 0.0
    ) -> None:
        self.url, self.tries, self.pause_s = url.rstrip("/"), tries, pause_s
        store: dict[str, Any] = {"anon": True}
        if endpoint:
            store["endpoint_url"] = endpoint
        options: dict[str, Any] = store if url.startswith("s3://") else {}
        if "::s3://" in url:
            options = {"s3": store}
        self.files, self.root = self.asked(lambda: url_to_fs(self.url, **options))
        self.root = self.root.rstrip("/")

    def at_once(self, connections: int) -> int:
        """Requests at a time: members of an archive are read through one open file."""
        return 1 if "::" in self.url else connections

    def asked(self, request: Any) -> Any:  # noqa: ANN401 - what fsspec answers
        """Make a request again if it fails, after longer and longer rests."""
        for number in itertools.count(1):
            try:
                answer = request()
            except Exception as error:  # libraries of three kinds of network raise anything
                if _is_absent(error):
                    raise
                if number >= self.tries:
                    raise UserError(f"{self.url}: {_fault(error)}") from None
                time.sleep(FIRST_WAIT_S * 2 ** (number - 1))
            else:
                time.sleep(self.pause_s)
                return answer
        raise AssertionError("counts without end")

    def found(self, path: str) -> list[Remote]:
        """Look up a file, or all that a pattern matches; none is an error.

        Raises
        ------
        UserError
            If there is no such file.
        """
        address = f"{self.root}/{path}" if self.root else path
        try:
            if any(sign in path for sign in "*?["):
                facts = self.asked(lambda: self.files.glob(address, detail=True))
            else:
                facts = {address: self.asked(lambda: self.files.info(address))}
        except FileNotFoundError:
            facts = {}
        files = {name: one for name, one in facts.items() if one.get("type") != "directory"}
        if not files:
            raise UserError(f"{self.url}: no file {path}")
        return [self._remote(name, one) for name, one in sorted(files.items())]

    def _remote(self, address: str, facts: Mapping[str, Any]) -> Remote:
        etag = str(facts.get("ETag") or facts.get("etag") or facts.get("CRC") or "").strip('"')
        size = facts.get("size")
        return Remote(
            path=address.removeprefix(self.root).lstrip("/"),
            address=address,
            size=None if size is None else int(size),
            version=etag,
            # Of an object that came in parts, S3 tells another digest, with a dash.
            md5=etag if self.url.startswith("s3://") and MD5.fullmatch(etag) else None,
        )

    def pieces(self, remote: Remote, start: int, piece: int) -> Iterator[bytes]:
        """Yield a file's content from a byte on."""
        if remote.size is None:
            yield self.asked(lambda: self.files.cat_file(remote.address))
            return
        while start < remote.size:
            stop = min(start + piece, remote.size)
            content = self.asked(lambda a=start, b=stop: self._read(remote, a, b))
            if len(content) > stop - start:
                # A server without ranges has sent all of it.
                content, stop = content[start:], remote.size
            yield content
            start = stop

    def _read(self, remote: Remote, start: int, stop: int) -> bytes:
        content = bytes(self.files.cat_file(remote.address, start=start, end=stop))
        if len(content) not in (stop - start, remote.size):
            raise OSError(f"{remote.path}: {len(content)} bytes, wanted {stop - start}")
        return content


def bring(
    home: Home, remote: Remote, folder: Path, sha256: str | None, *, piece: int
) -> Brought:
    """Bring one file to its place under a folder; what is there of it is kept.

    Parameters
    ----------
    home : Home
        Where it is published.
    remote : Remote
        The file.
    folder : Path
        The folder.
    sha256 : str or None
        Digest that it must have.
    piece : int
        Bytes of one request.

    Raises
    ------
    UserError
        If it is not what it should be: what was brought is removed.
    """
    target = inside(folder, remote.path)
    if not target.exists() or remote.size not in (None, target.stat().st_size):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Named by what is brought, so that pieces of two versions are never joined.
        version = hashlib.sha256(f"{remote.size} {remote.version}".encode()).hexdigest()[:8]
        part = target.with_name(f".{target.name}.{version}.part")
        resumed = part.stat().st_size if part.exists() and remote.size is not None else 0
        with part.open("ab" if resumed else "wb") as file:
            for content in home.pieces(remote, resumed, piece):
                file.write(content)
                file.flush()
    else:
        part = target
    sha = _digest(part, "sha256")
    if sha256 and sha != sha256.lower():
        part.unlink()
        raise UserError(f"{remote.path}: sha256 {sha}, wanted {sha256}; removed")
    if remote.md5 and (md5 := _digest(part, "md5")) != remote.md5:
        part.unlink()
        raise UserError(f"{remote.path}: md5 {md5}, wanted {remote.md5}; removed")
    if part != target:
        part.replace(target)
    checked = "sha256" if sha256 else "md5" if remote.md5 else None
    return Brought(remote.path, target.stat().st_size, sha, checked)


def bring_all(
    home: Home,
    remotes: Sequence[Remote],
    folder: Path,
    digests: Mapping[str, str],
    *,
    connections: int,
    piece: int,
) -> tuple[list[Brought], list[str]]:
    """Bring files, a few at a time; what fails keeps no other from coming.

    Returns
    -------
    brought : list of Brought
        Those that lie in their places.
    failed : list of str
        One line for each of the others.
    """

    def one(remote: Remote) -> Brought | str:
        try:
            return bring(home, remote, folder, digests.get(remote.path), piece=piece)
        except (UserError, OSError) as error:
            return str(error) if remote.path in str(error) else f"{remote.path}: {error}"

    with ThreadPoolExecutor(home.at_once(connections)) as pool:
        done = list(pool.map(one, remotes))
    brought = [x for x in done if isinstance(x, Brought)]
    return brought, [x for x in done if isinstance(x, str)]


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def _is_absent(error: Exception) -> bool:
    """Whether a file is not there; fsspec says so of any answer to a question over http."""
    status = getattr(error.__cause__, "status", 404 if error.__cause__ is None else None)
    return isinstance(error, FileNotFoundError) and status == 404


def _fault(error: Exception) -> str:
    absent = isinstance(error, FileNotFoundError)
    return reason((error.__cause__ or error) if absent else error)
