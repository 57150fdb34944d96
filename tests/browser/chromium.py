"""A real Chromium, driven over a pipe with its own protocol: no driver, no package, no port."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
)


class Chromium:
    """One browser with one page; what it asks for and what it complains of is kept.

    Parameters
    ----------
    profile : Path
        An empty folder for the browser's own files.
    """

    def __init__(self, profile: Path) -> None:
        assert PROGRAM is not None
        for_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = f'exec "$0" {_FLAGS} --user-data-dir="$1" 3<&{for_browser} 4>&{from_browser}'
        self._log = open(profile.with_name(profile.name + ".log"), "wb")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, PROGRAM, str(profile)],
            pass_fds=(for_browser, from_browser),
            stdout=self._log,
            stderr=self._log,
        )
        os.close(for_browser)
        os.close(from_browser)
        self._buffer, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the browser's answer to one command; events on the way are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(60)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            if not select.select([self._in], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError("Chromium does not answer")
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self._buffer += chunk
        raw, self._buffer = self._buffer.split(b"\0", 1)
        message: dict[str, Any] = json.loads(raw)
        if "id" not in message:
            self.events.append(message)
        return message

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Load a file at a width in CSS pixels and wait until it is all there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        end = time.monotonic() + 60
        while not self.named("Page.loadEventFired"):
            self._receive(max(end - time.monotonic(), 0))
        # By our own clock: pages whose scripts are turned off have none.
        time.sleep(0.2)

    def evaluate(self, script: str) -> Any:
        """Return the value of a script in the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        return result["result"].get("value")

    def until(self, script: str, seconds: float = 10) -> None:
        """Wait until a script says true, also across pages that load themselves anew."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):
                if self.evaluate(f"Boolean({script})"):
                    return
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {script}")
            time.sleep(0.1)

    def prefer(self, scheme: str) -> None:
        """Have pages be asked for in ``light`` or ``dark``, on a screen."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", media="", features=[feature])

    def fingers(self, used: bool) -> None:
        """Have the screen be touched instead of pointed at."""
        self.call("Emulation.setTouchEmulationEnabled", enabled=used)

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window."""
        self._mouse("mouseMoved", x, y, 0)

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        self.drag((x, y), (x, y))

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at one place of the window, move it to another and let it go."""
        self._mouse("mouseMoved", *start, 0)
        self._mouse("mousePressed", *start, 1)
        for step in range(1, 6) if start != end else ():
            share = step / 5
            x, y = ((1 - share) * a + share * b for a, b in zip(start, end, strict=True))
            self._mouse("mouseMoved", x, y, 1)
        self._mouse("mouseReleased", *end, 0)

    def _mouse(self, kind: str, x: float, y: float, buttons: int) -> None:
        button = {"button": "left", "clickCount": 1} if kind != "mouseMoved" or buttons else {}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=buttons, **button)

    def key(self, name: str) -> None:
        """Press a key."""
        code = {"key": name, "code": name, "windowsVirtualKeyCode": 13, "text": "\r"}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **code)

    def named(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of one name since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, itself and embedded data left out."""
        urls = [event["request"]["url"] for event in self.named("Network.requestWillBeSent")]
        page = self.evaluate("location.href")
        return [url for url in urls if url != page and not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Return the errors and warnings on the console."""
        texts = [event["entry"]["text"] for event in self.named("Log.entryAdded")]
        said = self.named("Runtime.consoleAPICalled")
        grave = ("error", "warning", "assert")
        texts += [str(event["args"]) for event in said if event["type"] in grave]
        return texts + [str(event) for event in self.named("Runtime.exceptionThrown")]

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def print(self, path: Path) -> None:
        """Save the page as it prints, as PDF on A4."""
        sheet = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(sheet["data"]))

    def close(self) -> None:
        """End the browser."""
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
