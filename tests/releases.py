"""Small folders laid out exactly like GroupLens's releases, written by the tests that read them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

RATINGS = [(1, 10, 5, 881250949), (1, 20, 3, 881250950), (2, 10, 4, 881250951), (2, 30, 1, 881250952)]


def _flags(*on: int) -> str:
    return "|".join("1" if number in on else "0" for number in range(19))


def ml_100k() -> dict[str, bytes]:
    items = [
        f"10|Toy Story (1995)|01-Jan-1995||http://us.imdb.com/M/title-exact?Toy%20Story%20(1995)|{_flags(3, 4, 5)}",
        f"20|Misérables, Les (1995)|01-Jan-1995||http://us.imdb.com/M/|{_flags(8, 12)}",
        f"30|Land Before Time III: The Time of the Great Giving (1995) (V)|01-Jan-1995|||{_flags(3)}",
        f"267|unknown||||{_flags(0)}",
    ]
    return {
        "u.data": "".join("\t".join(map(str, row)) + "\n" for row in RATINGS).encode(),
        "u.item": ("\n".join(items) + "\n").encode("latin-1"),
        "u.user": b"1|24|M|technician|85711\n2|53|F|other|T8H1N\n",
        "u.info": b"943 users\n1682 items\n100000 ratings\n",
    }


def _colons(rows: list[tuple[object, ...]]) -> str:
    return "".join("::".join(map(str, row)) + "\n" for row in rows)


_TITLES: list[tuple[object, ...]] = [
    (10, "Toy Story (1995)", "Animation|Children's|Comedy"),
    (20, "Misérables, Les (1995)", "Drama|Musical"),
    (30, "Star Wars: Episode IV - A New Hope (1977)", "Action|Sci-Fi"),
    (40, "Face/Off::Director's Cut (1997)", "Action"),
]


def ml_1m() -> dict[str, bytes]:
    return {
        "ratings.dat": _colons(list(RATINGS)).encode(),
        "movies.dat": _colons(_TITLES).encode("latin-1"),
        "users.dat": b"1::F::1::10::48067\n2::M::56::16::70072\n",
        "README": b"SUMMARY\n",
    }


def ml_10m() -> dict[str, bytes]:
    rows = [
        (user, item, rating - 0.5 if rating < 5 else rating, time) for user, item, rating, time in RATINGS
    ]
    return {
        "ratings.dat": _colons(list(rows)).encode(),
        "movies.dat": _colons(_TITLES).encode("utf-8"),
        "tags.dat": b"15::4973::excellent!::1215184630\n",
    }


def ml_csv() -> dict[str, bytes]:
    """ml-20m, ml-25m, ml-32m and ml-latest-small, with the line ends of the releases."""
    movies = [
        "movieId,title,genres",
        "10,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy",
        '20,"Misérables, Les (1995)",Drama|War',
        '30,"""Great Performances"" Cats (1998)",Musical',
        '40,"Death Note: Desu nôto (2006–2007)",(no genres listed)',
        "50,Nocturnal Animals,null",
    ]
    ratings = ["userId,movieId,rating,timestamp", *(f"{u},{i},{r:.1f},{t}" for u, i, r, t in RATINGS)]
    return {
        "ratings.csv": ("\r\n".join(ratings) + "\r\n").encode(),
        "movies.csv": ("\r\n".join(movies) + "\r\n").encode("utf-8"),
    }


MADE: dict[str, tuple[str, Callable[[], dict[str, bytes]]]] = {
    "ml-100k": ("ml-100k", ml_100k),
    "ml-1m": ("ml-1m", ml_1m),
    "ml-10m": ("ml-10M100K", ml_10m),
    "ml-20m": ("ml-20m", ml_csv),
    "ml-25m": ("ml-25m", ml_csv),
    "ml-32m": ("ml-32m", ml_csv),
    "ml-latest-small": ("ml-latest-small", ml_csv),
}


def write_folder(name: str, place: Path) -> Path:
    """The release's folder inside `place`; returns it."""
    folder, make = MADE[name]
    (place / folder).mkdir(parents=True)
    for file, content in make().items():
        (place / folder / file).write_bytes(content)
    return place / folder


def write_zip(name: str, place: Path) -> Path:
    """The release's archive inside `place`; returns it."""
    folder, make = MADE[name]
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in make().items():
            archive.writestr(f"__MACOSX/{file}", b"\0\0")
            archive.writestr(f"{folder}/deeper/{file}", b"nothing")
            archive.writestr(f"{folder}/{file}", content)
    return path
