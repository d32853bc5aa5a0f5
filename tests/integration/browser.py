"""A headless Chromium driven over its debugging pipe; only what the tests of pages need."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--mute-audio"),
    *("--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Browser:
    """One page in a new profile.

    Attributes:
        console: errors and warnings that the page wrote, uncaught exceptions included.
        requests: every address that the page asked for.
    """

    def __init__(self, program: str, profile: Path) -> None:
        to_read, to_write = os.pipe(), os.pipe()

        def pipes() -> None:  # Chromium reads commands from 3 and answers on 4
            commands = fcntl.fcntl(to_read[0], fcntl.F_DUPFD, 10)  # a free number: 3 and 4 and
            answers = fcntl.fcntl(to_write[1], fcntl.F_DUPFD, 10)  # others may be in use here
            os.dup2(commands, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=pipes,
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read[0])
        os.close(to_write[1])
        self._out, self._in, self._buffer = to_read[1], to_write[0], b""
        self._number, self._session = 0, ""
        self.console: list[str] = []
        self.requests: list[str] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 20)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, found = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(found["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning"):
            self.console.append(json.dumps(found["args"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.console.append(found["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])

    def open(self, path: Path, *, dark: bool = False, width: int = 1100, height: int = 900) -> None:
        """Load a file and wait until it is drawn."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.send("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + 20
        while self.value("document.readyState") != "complete":
            if time.monotonic() > deadline:
                raise RuntimeError(f"{path}: not loaded in 20 s")
            time.sleep(0.05)

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript and return its plain value."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    def hover(self, selector: str) -> None:
        """Move the mouse over the middle of an element."""
        box = self.value(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView();"
            "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
        )
        x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
        for shift in (-9, 0):
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x + shift, y=y)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen, or the whole page, as PNG."""
        shot = self.send(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=whole,
            **({"clip": {**self._size(), "x": 0, "y": 0, "scale": 1}} if whole else {}),
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def _size(self) -> dict[str, float]:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"width": size["width"], "height": size["height"]}

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        try:
            self.send("Browser.close")
            self._process.wait(timeout=10)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
