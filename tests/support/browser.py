"""A headless Chromium for tests, driven by the DevTools protocol over a pipe (--remote-debugging-pipe: commands go into
file descriptor 3, answers come from 4, JSON ended by a zero byte). https://chromedevtools.github.io/devtools-protocol/"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 240.0
# What lies over something else on a page of ours, or is cut off.
OVERLAPS = """(() => {
  const boxes = [...document.querySelectorAll("header, section")].map((e) => e.getBoundingClientRect());
  const bad = [];
  for (const a of boxes) for (const b of boxes) {
    const across = a.left < b.right - 1 && b.left < a.right - 1;
    if (a !== b && across && a.top < b.bottom - 1 && b.top < a.bottom - 1) bad.push(a.top);
  }
  for (const chart of document.querySelectorAll(".js-plotly-plot")) {
    const id = chart.closest("section").id;
    const area = chart.querySelector(".nsewdrag").getBoundingClientRect();
    const legend = chart.querySelector("g.legend .bg");
    if (legend && legend.getBoundingClientRect().bottom > area.top + 1) bad.push(`${id}: legend over the chart`);
    if (chart.scrollHeight > chart.closest("section").clientHeight) bad.push(`${id}: higher than its section`);
    if (area.height < 40 || area.width < 100) bad.push(`${id}: no room`);
    const whole = chart.getBoundingClientRect();
    // A legend may scroll, so what of it is below its end is not in the way.
    const boxes = [...chart.querySelectorAll(".ytick text, .annotation-text, .legendtext, .xtitle, .ytitle")];
    for (const [i, label] of boxes.entries()) {
      const box = label.getBoundingClientRect();
      if (box.left < whole.left - 1 || box.right > whole.right + 1) bad.push(`${id}: cut off: ${label.textContent}`);
      const other = boxes.slice(i + 1).find((one) => {
        if (one.closest("g.legend")) return false;
        const next = one.getBoundingClientRect();
        const across = box.left < next.right - 1 && next.left < box.right - 1;
        return across && box.top < next.bottom - 3 && next.top < box.bottom - 3;
      });
      if (other && !label.closest("g.legend")) bad.push(`${id}: ${label.textContent} runs into ${other.textContent}`);
    }
  }
  if (document.documentElement.scrollWidth > window.innerWidth) bad.push("wider than the window");
  return bad;
})()"""


def find_browser() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab. `problems` holds what went wrong in it: exceptions, console errors, files not found."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"the browser did not answer {what} within {TIMEOUT_S:.0f} s")
            part = os.read(self._answers, 1 << 20)
            if not part:
                raise RuntimeError(f"the browser ended before it answered {what}")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, details = event.get("method"), event.get("params", {})
        self._events.append(event)
        if method == "Runtime.exceptionThrown":
            thrown = details["exceptionDetails"]
            self.problems.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif method == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {[argument.get('value') for argument in details['args']]}")
        elif method == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.problems.append(details["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not details["request"]["url"].startswith(("file:", "data:")):
            self.problems.append(f"network: {details['request']['url']}")

    def open(self, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Loads a file and waits until the page says that it is drawn."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.theme(dark)
        self._call("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.body && document.body.dataset.ready === 'yes'")

    def theme(self, dark: bool) -> None:
        value = "dark" if dark else "light"
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def wait(self, condition: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not self.value(f"Boolean({condition})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {TIMEOUT_S:.0f} s: {condition}; problems: {self.problems}")
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", expression))
        return answer["result"].get("value")

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        def mouse(kind: str, at: tuple[float, float], button: str = "left") -> None:
            self._call("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button=button, clickCount=1)

        mouse("mouseMoved", start, "none")
        mouse("mousePressed", start)
        for part in (0.3, 0.6, 1.0):
            mouse("mouseMoved", tuple(a + (b - a) * part for a, b in zip(start, end, strict=True)))  # type: ignore[arg-type]
        mouse("mouseReleased", end)

    def move(self, at: tuple[float, float]) -> None:
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1], button="none")

    def screenshot(self, file: Path) -> None:
        """The whole page as PNG."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        answer = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(answer["data"]))


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    """A page of a browser that ends with the block."""
    browser = find_browser()
    assert browser, "no Chromium on this machine"
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()

    def descriptors() -> None:
        # In the child: 3 and 4 may be among the pipe's own numbers, so both move out of the way first.
        first, second = os.dup2(to_browser, 103), os.dup2(from_browser, 104)
        os.dup2(first, 3)
        os.dup2(second, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        words += ["--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [browser, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=descriptors, close_fds=False,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(commands, answers)
        finally:
            process.terminate()
            process.wait()
            os.close(commands)
            os.close(answers)
