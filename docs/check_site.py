"""What a built site leaves out: public names without a page or text, and links that lead nowhere.

Run ``python docs/check_site.py docs/_build/html`` after a build. It needs Beautiful Soup, which
comes with the theme.
"""

import importlib
import inspect
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

import ssn_estimators


@cache
def page(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def anchors(path):
    return {tag["id"] for tag in page(path).find_all(id=True)}


def public_objects():
    """(qualified name, object) of all classes and functions that users are to call."""
    rooms = [(room, importlib.import_module(f"ssn_estimators.{room}")) for room in _rooms()]
    found = {}
    for room, module in [("", ssn_estimators), *rooms]:
        for name in getattr(module, "__all__", dir(module)):
            value = getattr(module, name)
            if not name.startswith("_") and callable(value):  # tables of names are no pages
                found.setdefault(value, ".".join(filter(None, ["ssn_estimators", room, name])))
    return [(name, value) for value, name in found.items()]


def _rooms():
    return ssn_estimators._SUBMODULES


def public_members(cls):
    """Names of methods and properties, but for those that every scikit-learn estimator has."""
    for name, value in inspect.getmembers(cls):
        home = next(base for base in cls.__mro__ if name in base.__dict__ or base is object)
        public = not name.startswith("_") and home.__module__.startswith("ssn_estimators")
        value = inspect.getattr_static(cls, name)
        kinds = (property, classmethod, staticmethod)
        if public and (inspect.isfunction(value) or isinstance(value, kinds)):
            yield name, value


def parameters(callable_):
    try:
        names = inspect.signature(callable_).parameters
    except ValueError:  # an exception has none
        return []
    return [name for name in names if name not in ("self", "cls")]


def described(block):
    """Names in the lists of parameters and attributes of one class or function."""
    found = set()
    for fields in block.find_all("dl", class_="field-list", recursive=False):
        for term in fields.select("dd > dl > dt"):
            strong = term.find("strong")
            text = term.find_next_sibling("dd")
            if strong and text and text.get_text(strip=True):
                found |= {name.strip(" *\\") for name in strong.get_text().split(",")}
    return found


def gaps_of(site, name, value):
    """What the page of one object lacks."""
    path = site / "generated" / f"{name}.html"
    if not path.exists():
        yield f"{name}: no page"
        return
    wanted = [(name, value)]
    if inspect.isclass(value):
        wanted += [(f"{name}.{member}", item) for member, item in public_members(value)]
    for anchor, item in wanted:
        term = page(path).find("dt", id=anchor)
        block = term and term.find_next_sibling("dd")
        if not block or not block.get_text(strip=True):
            yield f"{anchor}: no text"
        elif not isinstance(item, property):
            function = getattr(item, "__func__", item)
            missing = set(parameters(function)) - described(block)
            yield from (f"{anchor}: parameter {parameter}" for parameter in sorted(missing))


def broken_links(site):
    pages = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    for path in pages:  # the theme's templates are not pages
        for tag in page(path).find_all(["a", "img", "link", "script"]):
            url = urlsplit(tag.get("href") or tag.get("src") or "")
            if url.scheme or url.netloc or not (url.path or url.fragment):
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            target = target / "index.html" if target.is_dir() else target
            where = f"{path.relative_to(site)}: {url.path}"
            if not target.exists():
                yield f"{where} is not there"
            elif url.fragment and target.suffix == ".html" and tag.name == "a":
                if unquote(url.fragment) not in anchors(target):
                    yield f"{where}#{url.fragment} is not there"


def main(folder):
    site = Path(folder).resolve()
    objects = public_objects()
    gaps = [gap for name, value in objects for gap in gaps_of(site, name, value)]
    links = sorted(set(broken_links(site)))
    print("\n".join(gaps + links))
    print(f"{len(objects)} public names: {len(gaps)} without text; {len(links)} broken links")
    return bool(gaps or links)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
