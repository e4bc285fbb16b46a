from rrgdb.recording.events import Columns

def decode(
    raw: bytes, count: int, first: int, horizon: int, names: int, ended: bool, bases: tuple[int, ...], /
) -> tuple[tuple[Columns, Columns, Columns, Columns], list[bytes]]: ...
