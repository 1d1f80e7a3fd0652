"""JupyterLab on loopback and a headless Chromium that reads in it, for test_browser.py and screenshots.py."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_for, wait_for_rest

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
WHY_NOT = None if CHROMIUM and DRIVER else "no Chromium and driver (Debian: apt-get install chromium chromium-driver)"

LAB_CONFIG = Path(__file__).resolve().parents[2] / ".ci" / "jupyter"  # what `make lab` sets for every reader

# Collects, before any script of the page runs, what the page itself would only write to its console.
NOTE_ERRORS = """
window.pageErrors = [];
window.addEventListener('error', event => window.pageErrors.push(String(event.message)));
window.addEventListener('unhandledrejection', event => window.pageErrors.push(String(event.reason)));
"""

# Short questions to the page, asked again and again. Cells are put into it one after the other; pictures come later, and
# so does the folding of what a closed heading hides.
WIDGETS = "const widgets = jupyterapp.shell.currentWidget?.content.widgets ?? [];"
IS_DRAWN = WIDGETS + """
const heading = model => model.type == 'markdown' ? model.sharedModel.getSource().match(/^#+(?= )/m) : null;
const levels = widgets.map(widget => heading(widget.model)?.[0].length ?? 7);  // 7: no heading
const end = i => levels.findIndex((level, later) => later > i && level <= levels[i]);
const under = i => widgets.slice(i + 1, end(i) < 0 ? widgets.length : end(i));
return widgets.length > 0 && widgets.every(widget => widget.isAttached && !widget.isPlaceholder())
    && [...document.querySelectorAll('.jp-Notebook img')].every(picture => picture.complete)
    && widgets.every((widget, i) => !widget.model.getMetadata('jp-MarkdownHeadingCollapsed')
        || under(i).every(it => it.isHidden));
"""
IS_IDLE = "return document.querySelector('#jp-main-statusbar')?.innerText.includes('| Idle');"
IS_DONE = WIDGETS + """  // every cell has run, or one of them has failed
const cells = widgets.map(widget => widget.model).filter(model => model.type == 'code');
return cells.every(cell => cell.executionCount || !cell.sharedModel.getSource().trim())
    || document.querySelector('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]') != null;
"""

# What the notebook holds now: its code cells as Jupyter knows them, and the pictures that the page could not load.
NOTEBOOK_STATE = WIDGETS + """
const text = source => [source].flat().join('');
const cells = widgets.filter(widget => widget.model.type == 'code').map(widget => {
    const {source, outputs} = widget.model.toJSON();
    return {source: text(source), hidden: widget.isHidden,
            stderr: outputs.filter(output => output.name == 'stderr').map(output => text(output.text)),
            errors: outputs.filter(output => output.output_type == 'error')
                .map(output => `${output.ename}: ${output.evalue}`)};
});
const broken = [...document.querySelectorAll('.jp-Notebook img')].filter(picture => !picture.naturalWidth)
    .map(picture => picture.src.slice(0, 100));
return {cells, broken};
"""


@contextmanager
def jupyterlab(folder: Path, private: Path, **settings: dict) -> Iterator[str]:
    """Serves `folder` on loopback as `make lab` does, kernels in test mode; yields the address.

    What JupyterLab keeps goes into `private`; `settings` are what the reader has set there: plugin -> values.
    """
    for plugin, values in settings.items():
        path = private / f"settings/@jupyterlab/{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
              "JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython"}
    environment = {**os.environ, **{name: str(private / place) for name, place in places.items()}, "IN_TEST": "1"}
    environment.pop("MPLBACKEND", None)
    environment["JUPYTER_CONFIG_PATH"] = str(LAB_CONFIG)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip", "127.0.0.1",
               "--port", str(port), "--ServerApp.port_retries=0", "--IdentityProvider.token=",
               f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    with open(private / "jupyterlab.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{address}/api") or server.poll() is not None, "JupyterLab's answer")
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended: {(private / 'jupyterlab.log').read_text()[-2000:]}")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


@contextmanager
def chromium(width: int = 1280, height: int = 1000):
    "A headless Chromium, driven by selenium; its pages are `width` x `height` pixels."
    from selenium import webdriver
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--force-device-scale-factor=1", "--hide-scrollbars"):
        options.add_argument(argument)
    metrics = dict(width=width, height=height, pixelRatio=1, mobile=False, touch=False)
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.set_script_timeout(600)
        yield driver
    finally:
        driver.quit()


class NotebookPage:
    """One notebook, open in a tab of its own in JupyterLab; the page notes its errors.

    There is nothing beside it, or at `place` "lab" all that a reader has there.
    """

    def __init__(self, driver, address: str, path: str, place: str = "doc"):
        self.driver = driver
        driver.switch_to.new_window("tab")
        # else no notebook is the current one
        driver.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": NOTE_ERRORS})
        driver.get(f"{address}/{place}/tree/{path}?reset")
        wait_for(lambda: driver.execute_script("return 'jupyterapp' in window"), "JupyterLab")
        self.wait_until_drawn()

    def says(self, question: str) -> bool:
        return self.driver.execute_script(question)

    def wait_until_drawn(self) -> None:
        "And at rest: JupyterLab shows what a closed heading hides again, for a moment, while it draws."
        wait_for_rest(lambda: self.says(IS_DRAWN), "the last cell and picture in the page")

    def wait_until_idle(self) -> None:
        "Until the status bar says so: the toolbar says idle before there is a kernel."
        wait_for(lambda: self.says(IS_IDLE), "an idle kernel")

    def state(self) -> dict:
        return self.driver.execute_script(NOTEBOOK_STATE)

    def run_all(self) -> dict:
        "Run > Run All Cells with the mouse; returns the notebook's state when the last cell is done."
        self.wait_until_idle()
        self.click("//div[contains(@class,'lm-MenuBar-itemLabel')][text()='Run']")
        self.click("//li[@data-command='runmenu:run-all']")
        wait_for(lambda: self.says(IS_DONE), "the end of the last cell")
        self.wait_until_idle()
        self.wait_until_drawn()
        return self.state()

    def save(self) -> None:
        "Returns when JupyterLab has written the file."
        self.driver.execute_script("return jupyterapp.commands.execute('docmanager:save')")

    def click(self, xpath: str) -> None:
        from selenium.webdriver.common.by import By
        wait_for(lambda: any(it.is_displayed() for it in self.driver.find_elements(By.XPATH, xpath)), xpath)
        self.driver.find_element(By.XPATH, xpath).click()

    def drag(self, element, by: int) -> None:
        "Presses the mouse on the middle of an element, moves `by` pixels to the right, lets go."
        from selenium.webdriver import ActionChains
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).click_and_hold(element).move_by_offset(by, 0).release().perform()

    def page_errors(self) -> list[str]:
        return self.driver.execute_script("return window.pageErrors")

    def close(self) -> None:
        "Shuts down the kernels and closes the tab: the next notebook has the memory and the cores to itself."
        self.driver.execute_script("return jupyterapp.serviceManager.sessions.shutdownAll()")
        self.driver.close()
        self.driver.switch_to.window(self.driver.window_handles[0])

    def screenshots(self, folder: Path, name: str) -> list[Path]:
        "The whole notebook from top to bottom, one picture a screenful: NAME-01.png, NAME-02.png, ..."
        panel = "document.querySelector('.jp-WindowedPanel-outer')"
        self.driver.execute_script(f"document.activeElement.blur(); {panel}.scrollTop = 0")
        self.wait_until_drawn()
        height, whole = self.driver.execute_script(f"return [{panel}.clientHeight, {panel}.scrollHeight]")
        paths = []
        for number in range(-(-whole // height)):
            self.driver.execute_script(f"{panel}.scrollTop = {number * height}")
            time.sleep(0.3)
            paths.append(folder / f"{name}-{number + 1:02}.png")
            self.driver.get_screenshot_as_file(str(paths[-1]))
        return paths
