"""Looks at pages in headless Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

_SCRIPT = """
const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
  .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const contrast = (a, b) => {
  const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
  return (x + .05) / (y + .05);
};
function background(win, node) {
  for (; node; node = node.parentElement) {
    const found = rgb(win.getComputedStyle(node).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
}
function look(frame) {
  const win = frame.contentWindow, doc = win.document, width = doc.documentElement.clientWidth;
  doc.querySelectorAll('details').forEach(own => own.open = true);
  const shown = own => own.getClientRects().length > 0;
  const name = own => own.tagName + '.' + (own.getAttribute('class') || '') + ': ' +
    own.textContent.trim().slice(0, 40);
  const wide = [...doc.querySelectorAll('main, main *')].filter(own => shown(own) &&
    !own.closest('svg') && !own.closest('.scroll > *') &&
    own.getBoundingClientRect().right > width + 1);
  const cut = [...doc.querySelectorAll('svg text')].filter(own => {
    const text = own.getBoundingClientRect(), all = own.ownerSVGElement.getBoundingClientRect();
    return shown(own) && (text.left < all.left - 2 || text.right > all.right + 2 ||
      text.top < all.top - 2 || text.bottom > all.bottom + 2);
  });
  const leaves = [...doc.querySelectorAll('main *')].filter(own => shown(own) &&
    [...own.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  const faint = leaves.filter(own => own.tagName !== 'title').filter(own => {
    const style = win.getComputedStyle(own), svg = own.namespaceURI.includes('svg');
    return contrast(rgb(svg ? style.fill : style.color), background(win, own)) < 4.5;
  });
  const hidden = [...doc.querySelectorAll('.scroll')]
    .filter(own => own.scrollWidth > own.clientWidth + 1);
  const small = leaves.filter(own => own.tagName === 'text')
    .filter(own => own.getBoundingClientRect().height < 9);
  return {
    width, scroll: doc.documentElement.scrollWidth, wide: wide.map(name), cut: cut.map(name),
    faint: faint.map(name), small: small.map(name), hidden: hidden.map(name),
    charts: [...doc.querySelectorAll('svg.chart')].filter(shown).length,
    headings: [...doc.querySelectorAll('h1, h2')].map(own => own.textContent),
    rows: doc.querySelectorAll('.rows li').length,
    background: background(win, doc.body),
    height: doc.documentElement.scrollHeight,
  };
}
"""


def find_chromium() -> str | None:
    """The browser; None where there is none."""
    return next((found for name in _NAMES if (found := shutil.which(name))), None)


def look_at(pages: list[Path], widths: list[int], *, dark: bool = False) -> list[dict[str, Any]]:
    """What pages look like at some widths.

    Args:
        pages: their files, in one folder.
        widths: in pixels.
        dark: prefer dark colours.
    Returns:
        For each page and width: texts and elements that are too wide, cut, faint or small, and
        counts.
    """
    browser = find_chromium()
    assert browser is not None
    frames = "".join(
        f'<iframe src="{page.name}" width="{width}" height="900" style="border:0"></iframe>'
        for page in pages
        for width in widths
    )
    script = f"""{_SCRIPT}
addEventListener('load', () => {{
  const found = [...document.querySelectorAll('iframe')].map(look);
  document.body.innerHTML = '';
  document.body.append(Object.assign(document.createElement('pre'),
    {{textContent: JSON.stringify(found)}}));
}});"""
    outer = pages[0].with_name("look.html")
    outer.write_text(f"<!doctype html><body>{frames}<script>{script}</script>")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--allow-file-access-from-files", f"--user-data-dir={profile}",
            *(["--force-dark-mode"] if dark else []), "--dump-dom", outer.as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    outer.unlink()
    text = re.search(r"<pre>(.*)</pre>", done.stdout, re.DOTALL)
    assert text is not None, done.stdout[:2000] + done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(html.unescape(text[1]))
    return found


def printed_pages(page: Path) -> list[tuple[float, float]]:
    """Print a page to PDF; width and height of each sheet, in points."""
    browser = find_chromium()
    assert browser is not None
    pdf = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
            "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri(),
        ]  # fmt: skip
        subprocess.run(command, capture_output=True, timeout=120, check=True)
    objects = re.findall(rb"/Type /Page\b(?!s).*?endobj", pdf.read_bytes(), re.DOTALL)
    boxes = [re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", own) for own in objects]
    return [(float(box[1]), float(box[2])) for box in boxes if box is not None]
