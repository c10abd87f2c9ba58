"""Published files of known relationships: which copy a user brought, and under what terms.

None of them comes with the project; a file is named in the configuration and read from where
the user keeps it.
"""

import gzip
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from phenopipe.errors import UserError, reason


class Published(NamedTuple):
    """A file of pairs that others know by name.

    Attributes
    ----------
    licence : str
        Terms of use, as its publishers state them.
    sha256 : str
        Digest of the copy that efaar-benchmarking 1.0 carries, unpacked.
    """

    licence: str
    sha256: str


PUBLISHED = {
    "corum": Published(
        "CC BY-NC 4.0 by its file, CC BY 4.0 by its link: ask first",
        "edaafc77a184ef452996d211e9fe1699615315a36e1efc9d602042c06168a695",
    ),
    "humap": Published(
        "CC BY 4.0, with attribution",
        "6d08074df77f1a7274e754bc6e5e29aa438004bec0a13cbfb934c2c81328f3c4",
    ),
    "reactome": Published(
        "CC0 1.0", "ed3cd0fc32d2fe3510f167e9df39668bc9637348d78787615d3f970b2b862e70"
    ),
    "stringdb": Published(
        "CC BY 4.0, with attribution",
        "7955c846a551530c07b1eb508404cf15ef0b77ea39ad2368ed40c5c099dedb8c",
    ),
    "signor": Published(
        "CC BY-NC 4.0: not for commercial use",
        "00525d3a90198378b54c5c3093374d5c9ee0550bbd799f06b443512a465bcad3",
    ),
}


def digest(path: Path) -> str:
    """SHA-256 of a file's content, unpacked if it is gzipped.

    Raises
    ------
    UserError
        If the file cannot be read or unpacked.
    """
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)})") from None
    return hashlib.sha256(content).hexdigest()


def describe_sources(
    sources: Sequence[str], paths: Sequence[Path], wanted: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Tell of each source its digest, whether that is the published copy, and its licence.

    Parameters
    ----------
    sources, paths : list
        Names of the sources and their files.
    wanted : mapping of str to str
        Digests that the user insists on, by source.

    Raises
    ------
    UserError
        If a file has another digest than the user wants, or a digest is for no source.
    """
    for name in wanted:
        if name not in sources:
            raise UserError(f"checksum for source {name!r}, wanted one of {list(sources)}")
    told = {}
    for source, path in zip(sources, paths, strict=True):
        found = digest(path)
        if wanted.get(source, found) != found:
            raise UserError(f"{path}: SHA-256 {found}, wanted {wanted[source]} ({source})")
        known = PUBLISHED.get("".join(filter(str.isalnum, source)).lower())
        told[source] = {
            "sha256": found,
            "copy": "published" if known and found == known.sha256 else "another",
            "licence": known.licence if known else "unknown",
        }
    return told
