"""Headless Chromium: what a page looks like to somebody who opens it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Looks at every frame once all is loaded. A page under test has no script of its own and allows none.
LOOK = """
addEventListener("load", () => {
  const seen = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, shown = e => e.getBoundingClientRect();
    const style = e => frame.contentWindow.getComputedStyle(e);
    return {
      title: page.title,
      text: page.body.innerText,
      headings: [...page.querySelectorAll("h1, h2")].map(e => e.textContent),
      links: [...page.querySelectorAll("nav a")].map(e => [e.hash, !!page.querySelector(e.hash)]),
      ids: [...page.querySelectorAll("[id]")].map(e => e.id),
      images: [...page.images].map(e => [e.alt, e.naturalWidth, shown(e).width, shown(e).height]),
      charts: [...page.querySelectorAll("svg")].map(e => [
        e.getAttribute("aria-label"), shown(e).width, shown(e).height, e.querySelectorAll("path").length,
        [...e.querySelectorAll("text")].map(t => t.textContent),
      ]),
      narrow: Math.min(...[...page.querySelectorAll("svg text")].map(t => shown(t).height)),
      overflow: page.documentElement.scrollWidth - frame.clientWidth,
      scripts: page.scripts.length,
      background: style(page.body).backgroundColor,
      foreground: style(page.querySelector("svg text")).fill,
    };
  });
  document.querySelector("pre").textContent = JSON.stringify(seen);
});
"""


def browser() -> str:
    """The program; a test that needs it is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed (apt-get install chromium)")
    return found


def rendered(pages: Sequence[Path], width: int, *, dark: bool = False) -> list[dict[str, Any]]:
    """What each page came to in a window `width` pixels wide; see LOOK for the keys."""
    frames = "".join(
        f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(text)}"></iframe>'
        for text in (page.read_text("utf-8") for page in pages)
    )
    with tempfile.TemporaryDirectory() as folder:
        around = Path(folder) / "around.html"
        around.write_text(f'<!DOCTYPE html><meta charset="utf-8"><script>{LOOK}</script>{frames}<pre></pre>', "utf-8")
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *scheme]
        command += [f"--user-data-dir={folder}/profile", "--dump-dom", around.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"<pre>(.*?)</pre></body>", done.stdout, re.DOTALL)
    assert done.returncode == 0 and found and found[-1], done.stderr[-2000:]
    return json.loads(html.unescape(found[-1]))
