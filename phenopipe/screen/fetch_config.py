"""Knobs of ``screen.fetch``, apart from those that describe a screen."""

from pydantic import Field, NonNegativeFloat, PositiveInt

from phenopipe.knobs import Knobs


class FetchKnobs(Knobs):
    """What is brought of a public screen, and how."""

    home: str
    """Where it is published: https://..., s3://bucket/prefix, or an archive of which only the
    chosen members are read (zip::https://...)."""

    files: tuple[str, ...] = Field(min_length=1)
    """Paths under the home, which are those under the screen's folder too. {experiment},
    {plate}, {well}, {row}, {column}, {channel} and {part} stand for the words below; * and ?
    match anything where the home can list its files."""

    folder: str = "."
    """Where files go; the screen's ``path`` under ``data``."""

    experiments: tuple[str, ...] = ()
    """Words for {experiment}; the screen's experiments if left out."""

    plates: tuple[str, ...] = ()
    """Words for {plate}."""

    wells: tuple[str, ...] = ()
    """Words for {well}; their rows and columns, two digits each, for {row} and {column}."""

    channels: tuple[str, ...] = ()
    """Words for {channel}."""

    parts: tuple[str, ...] = ()
    """Words for {part}, such as the numbers of shards."""

    max_gb: float = Field(default=10.0, gt=0)
    """More than this is refused before anything is brought."""

    connections: PositiveInt = 4
    """Files that are brought at once."""

    pause_s: NonNegativeFloat = 0.0
    """Seconds of rest of each connection after each request."""

    tries: PositiveInt = 5
    """Times that a request is made, with longer and longer rests between, until it counts as
    failed."""

    piece_mb: float = Field(default=16.0, gt=0)
    """Megabytes of one request; what was brought before a fault stays brought."""

    endpoint: str | None = None
    """Another S3 server than Amazon's."""
