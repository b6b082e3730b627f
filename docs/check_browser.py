"""What a reader of the built site would see: pages in a real browser, wide and on a phone.

Run ``python docs/check_browser.py docs/_build/html`` after a build. It needs ``pip install
playwright`` and Chromium, that of the system or of ``playwright install chromium``. Every page that
is written by hand, the gallery and pages of the reference that have equations or tables are opened
at 1,400 and 390 pixels. Fails: errors in the console, files of the site that are not found,
equations that are not drawn, parts that are wider than the page, and a search that finds nothing.
"""

import argparse
import contextlib
import functools
import http.server
import shutil
import sys
import threading
from pathlib import Path

from playwright.sync_api import Error, sync_playwright

WIDTHS = {"wide": 1400, "phone": 390}
HEIGHT = 900
SEARCHED = "stabilized supralinear"
# wide parts that scroll by themselves are no fault
OVERFLOW = """() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width + 1) return [];
    const scrolls = e => { for (let p = e; p && p !== document.body; p = p.parentElement)
        if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return true;
        return false; };
    return [...document.body.querySelectorAll('*')]
        .filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e))
        .map(e => e.tagName + '.' + e.className).slice(0, 3);
}"""
EQUATIONS = """() => [...document.querySelectorAll('.math')]
    .filter(e => !e.querySelector('mjx-container') || e.querySelector('mjx-merror'))
    .map(e => e.textContent.slice(0, 60))"""
HAS_EQUATIONS = "() => document.querySelector('.math') !== null"
DRAWN = "() => window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => true)"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """Address of a server of the folder."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def pages_of(site, every):
    """Pages relative to the site: all of the hand-written ones, and some of the reference."""
    own = [path for path in site.rglob("*.html") if not {"_static", "_modules"} & {*path.parts}]
    names = sorted(path.relative_to(site).as_posix() for path in own)
    if every:
        return names
    reference = [name for name in names if name.startswith("generated/")]
    return [name for name in names if name not in reference] + reference[::8]


class Look:
    """One page at one width: what is wrong with it."""

    def __init__(self, page, address):
        self.page, self.address, self.faults = page, address, []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("response", self._response)

    def _console(self, message):
        # a file that is not found is told with its name below
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def _response(self, response):
        if response.status >= 400 and response.url.startswith(self.address):
            self.faults.append(f"{response.status}: {response.url.removeprefix(self.address)}")

    def at(self, name):
        """Faults of a page."""
        self.faults = []
        try:
            self.page.goto(f"{self.address}/{name}", wait_until="load")
            if self.page.evaluate(HAS_EQUATIONS):
                self.page.wait_for_function(DRAWN, timeout=20_000)
                self.faults += [f"equation: {text}" for text in self.page.evaluate(EQUATIONS)]
            self.faults += [f"too wide: {part}" for part in self.page.evaluate(OVERFLOW)]
        except Error as error:
            self.faults.append(str(error).splitlines()[0])
        return self.faults

    def search(self, text):
        """Whether a search finds anything."""
        self.page.goto(f"{self.address}/search.html?q={text}")
        try:
            self.page.wait_for_selector("ul.search li", timeout=10_000)
        except Error:
            return [f"a search for {text!r} finds nothing"]
        return []


def chromium(playwright):
    found = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox", "--disable-background-networking", "--disable-quic"]
    return playwright.chromium.launch(executable_path=found, args=flags)


def look(site, every=False, pictures=None):
    """Lines that say what is wrong, and the number of pages."""
    names, lines = pages_of(site, every), []
    with served(site) as address, sync_playwright() as playwright:
        browser = chromium(playwright)
        for kind, width in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": HEIGHT})
            # the site is read as it is shipped, without what others would add
            page.route("**/*", lambda r: r.continue_() if address in r.request.url else r.abort())
            eye = Look(page, address)
            for name in names:
                lines += [f"{name} ({kind}): {fault}" for fault in eye.at(name)]
                if pictures:
                    pictures.mkdir(parents=True, exist_ok=True)
                    flat = name.removesuffix(".html").replace("/", "-")
                    page.screenshot(path=pictures / f"{flat}-{kind}.png")
            lines += [f"search ({kind}): {fault}" for fault in eye.search(SEARCHED)]
            page.close()
        browser.close()
    return lines, len(names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--every", action="store_true", help="all pages of the reference")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of what is seen")
    args = parser.parse_args()
    lines, n_pages = look(args.site.resolve(), args.every, args.pictures)
    print("\n".join(lines))
    print(f"{n_pages} pages at {len(WIDTHS)} widths: {len(lines)} faults")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
