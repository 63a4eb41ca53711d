"""Chromium without a window, driven over a pipe by its own protocol: no driver and no package is needed but Debian's `chromium`."""

import base64
import json
import os
import subprocess
import tempfile

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
]


class Browser:
    """One page. `seen` holds what it asked for, `dialogs` what it wanted to say, `complaints` what its console and policy refused."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # Chromium reads commands from descriptor 3 and answers on 4.
        theirs_in, self.out = os.pipe()
        self.answers, theirs_out = os.pipe()
        command = ["chromium", *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"]
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *command], pass_fds=[theirs_in, theirs_out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.number, self.buffer, self.session = 0, b"", None
        self.seen, self.dialogs, self.complaints = [], [], []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Network", "Runtime", "Log", "DOM"]:
            self.ask(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.out)
        self.process.terminate()
        self.process.wait(timeout=30)
        self.profile.cleanup()

    def ask(self, method, **parameters):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def message(self):
        while b"\0" not in self.buffer:
            piece = os.read(self.answers, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium has ended")
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(text)
        event, parameters = message.get("method"), message.get("params", {})
        if event == "Network.requestWillBeSent":
            self.seen.append(parameters["request"]["url"])
        elif event == "Page.javascriptDialogOpening":
            self.dialogs.append(parameters["message"])
            self.number += 1
            dismiss = {"id": self.number, "sessionId": self.session, "method": "Page.handleJavaScriptDialog", "params": {"accept": False}}
            os.write(self.out, json.dumps(dismiss).encode() + b"\0")
        elif event == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        return message

    def look(self, width=1280, height=900, dark=False, script=True):
        """How the page is looked at from now on."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Emulation.setScriptExecutionDisabled", value=not script)

    def open(self, url):
        """Ends when the page is loaded."""
        self.seen, self.dialogs, self.complaints = [], [], []
        self.ask("Page.navigate", url=url)
        while self.message().get("method") != "Page.loadEventFired":
            pass

    def run(self, expression):
        """The value of an expression in the page."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return result["result"].get("value")

    def picture(self, file, height=None, whole=False):
        """PNG or WebP of the page: what is in view, the whole, or down to `height`."""
        clip = {}
        if whole or height:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], height or 6000), "scale": 1}}
        form = {"format": "webp", "quality": 85} if str(file).endswith(".webp") else {"format": "png"}
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True, **form, **clip)["data"]
        with open(file, "wb") as out:
            out.write(base64.b64decode(data))
