"""The page of nepa3d explore as it is seen and used, in headless Chromium."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

pytest.importorskip("viser", reason="needs nepa3d[explore]")
pytest.importorskip("lancedb", reason="needs nepa3d[search]")
pytest.importorskip("matplotlib", reason="reads the screen")

from matplotlib import image
from viser.transforms import SO3

from nepa3d.inference.explore.explorer import Explorer
from nepa3d.inference.explore.rays import about_z
from nepa3d.inference.explore.session import SHEET
from nepa3d.inference.explore.stage import PREDICTED, SMALL, TRUE, layout
from tests.inference.conftest import gui_of, wait_for, write_cloud
from tests.report.test_page import CHROMIUM

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
BOX = trimesh.creation.box((2, 1, 1.5))
CLOSE = """() => {
    const buttons = document.querySelectorAll(".mantine-Notification-closeButton");
    for (const button of buttons) button.click();
    return buttons.length;
}"""
DROP = """([name, content, x, y]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    const target = document.elementFromPoint(x, y);
    for (const kind of ["dragover", "drop"]) {
        const event = new DragEvent(kind, {dataTransfer, bubbles: true, cancelable: true});
        if (target.dispatchEvent(event)) throw new Error(`the page leaves ${kind} to the browser`);
    }
}"""


class Seen:
    """A page that is open in a browser, with what the server knows of it."""

    def __init__(self, server: Any, page: Any) -> None:
        self.server, self.page = server, page

    @property
    def client(self) -> Any:
        return next(iter(self.server.get_clients().values()))

    def widget(self, label: str) -> Any:
        """The first widget whose label begins so; None if there is none."""
        handles = gui_of(self.server)._gui_input_handle_from_uuid.values()
        return next((handle for handle in handles if getattr(handle, "label", "").startswith(label)), None)

    def drawn(self, name: str) -> Any:
        """What of the scene has this name; None if nothing has."""
        return self.client.scene._handle_from_node_name.get(name)

    def drop(self, name: str, content: bytes) -> None:
        """Drop a file where the scene is, as a browser does."""
        self.page.evaluate(DROP, [name, base64.b64encode(content).decode(), 150, 250])

    def size(self) -> tuple[float, float]:
        """Width and height of the scene in pixels of the page. The camera's are those of the device, or fewer where
        viser thinks that it draws too slowly."""
        box = self.page.locator("canvas").first.bounding_box()
        return box["width"], box["height"]

    def place(self, point: Any) -> tuple[float, float]:
        """Where (x, y) on the page a point (3,) of the scene is seen."""
        camera, (width, height) = self.client.camera, self.size()
        x, y, z = SO3(camera.wxyz).inverse().apply(np.asarray(point) - camera.position)
        focal = height / 2 / np.tan(camera.fov / 2)
        return width / 2 + focal * x / z, height / 2 + focal * y / z

    def pixels(self) -> Any:
        """Colours (H, W, 3) in [0, 1] of what is on the screen, by pixels of the page."""
        return image.imread(io.BytesIO(self.page.screenshot(scale="css")))[..., :3]

    def around(self, point: Any, right: float, up: float) -> Any:
        """Those within so many units of the scene about a point."""
        pixels = self.pixels()
        (x0, y0), (x1, y1) = self.place(np.add(point, (-right, 0, up))), self.place(np.add(point, (right, 0, -up)))
        return pixels[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1]

    def close_notifications(self) -> None:
        """As a user does, before a click at what is behind them. By a script, as some close themselves meanwhile."""
        wait_for(lambda: self.page.evaluate(CLOSE) == 0)

    def stands(self) -> Any:
        """The places of the shapes as they were laid out."""
        width, height = self.size()
        return layout(3, width / height / (1 - SHEET if width <= 576 else 1.0))


@contextlib.contextmanager
def browser(server: Any, scheme: str, width: int, height: int, **more: Any) -> Iterator[Seen]:
    """The page in a window of this size. On leaving: it had no error, and asked no other server for anything."""
    playwright = pytest.importorskip("playwright.sync_api")
    address = f"http://localhost:{server.get_port()}/"
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=180_000)
        context = running.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **more)
        opened = context.new_page()
        opened.set_default_timeout(180_000)
        errors: list[str] = []
        asked: set[str] = set()
        opened.on("pageerror", lambda error: errors.append(f"{error}"))
        opened.on("request", lambda request: asked.add(request.url))
        opened.goto(address)
        opened.wait_for_function("document.title === 'nepa3d explore'")
        yield Seen(server, opened)
        assert opened.evaluate("document.documentElement.scrollWidth") == width
        running.close()
    assert not errors
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {address}


def is_captioned(seen: Seen, place: Any, scale: float) -> bool:
    """Whether dark letters stand on a light ground below a shape."""
    colors = seen.around(np.add(place, (0, 0, -1.1 * scale - 0.14)), 0.25, 0.1)
    return bool((colors.max(-1) < 0.3).any() and (colors.min(-1) > 0.75).any())


def greenness(colors: Any) -> float:
    """The share of pixels that are green, as distances of the middle of the scale are."""
    return float((colors[..., 1] > colors[..., 0] + 0.15).mean())


def test_a_dropped_shape_is_completed_cut_and_asked(server: Any, explorer: Explorer) -> None:
    with browser(server, "light", 1280, 720) as seen:
        keys = seen.page.keyboard
        seen.drop("box.obj", BOX.export(file_type="obj").encode())
        wait_for(lambda: seen.drawn(f"{PREDICTED}/body/form") is not None)
        assert seen.widget("1  ") is not None and not seen.widget("Dark").value
        stands = seen.stands()
        for place, scale in ((stands.true, 1.0), (stands.predicted, 1.0), *((at, SMALL) for at in stands.neighbours)):
            wait_for(lambda place=place, scale=scale: is_captioned(seen, place, scale))

        for axis in "xyz":
            keys.press("p")
            wait_for(lambda axis=axis: seen.widget("Across").value == axis)
        for place in (stands.true, stands.predicted):  # that across z faces the camera
            wait_for(lambda place=place: greenness(seen.around(place, 0.9, 0.9)) > 0.2)
        keys.press("p")
        wait_for(lambda: seen.drawn(f"{TRUE}/body/cut") is None)
        wait_for(lambda: greenness(seen.around(stands.true, 0.9, 0.9)) < 0.1)

        told = seen.drawn(f"{TRUE}/body/context").colors
        seen.page.mouse.click(*seen.place(stands.true))
        wait_for(lambda: seen.drawn(f"{TRUE}/body/question") is not None)
        assert seen.widget("Show").value and not np.array_equal(seen.drawn(f"{TRUE}/body/context").colors, told)
        at = np.abs(seen.drawn(f"{TRUE}/body/question").position)
        half = BOX.extents / np.linalg.norm(BOX.extents)  # it has radius 1
        assert (at <= half + 1e-3).all() and np.isclose(at, half, atol=1e-3).any()  # on its surface
        keys.press("n")
        wait_for(lambda: seen.drawn(f"{TRUE}/body/question") is None)

        before, points = seen.drawn(f"{PREDICTED}/body/form").vertices, seen.widget("Context points")
        count = points.value
        seen.page.locator(f"[id='{points._impl.uuid}'] [role=slider]").press("ArrowLeft")
        wait_for(lambda: len(seen.drawn(f"{TRUE}/body/context").points) == count - 1)
        wait_for(lambda: not np.array_equal(seen.drawn(f"{PREDICTED}/body/form").vertices, before))

        angle = seen.widget("Turn").value
        stood = seen.around(stands.true, 1.0, 1.0)
        keys.press("t")
        wait_for(lambda: seen.drawn(TRUE).wxyz == pytest.approx(about_z(angle + 30)))
        wait_for(lambda: (np.abs(seen.around(stands.true, 1.0, 1.0) - stood).max(-1) > 0.1).mean() > 0.02)


def test_refusals_neighbours_and_the_map(server: Any, explorer: Explorer, tmp_path: Path) -> None:
    with browser(server, "light", 1280, 720) as seen:
        cut = write_cloud(tmp_path / "cut.ply", BOX.sample(200, seed=0)).read_bytes()[:900]
        for name, content, told in (
            ("cut.ply", cut, "cut.ply: unreadable"),
            ("picture.png", b"\x89PNG", "expected a file that ends in"),
            ("large.obj", b"v" * (3 << 20), "at most 2 MB are taken"),
        ):
            seen.drop(name, content)
            seen.page.get_by_text(told).first.wait_for()
        (tmp_path / "box.obj").write_text(BOX.export(file_type="obj"))
        with seen.page.expect_file_chooser() as chooser:
            seen.page.get_by_text("Open a file, or drop it here").click()
        chooser.value.set_files(tmp_path / "box.obj")
        wait_for(lambda: seen.widget("1  ") is not None)

        keys, listed = seen.page.keyboard, seen.widget("Shape")
        away = np.linalg.norm(explorer.places[:, None] - explorer.places[None], axis=-1) + 9 * np.eye(len(explorer.ids))
        row = int(away.min(1).argmax())  # the dot that is most by itself
        wait_for(lambda: _clicked_to(seen, (*explorer.places[row], 0.0), explorer.ids[row]))

        keys.press("1")
        wait_for(lambda: listed.value != explorer.ids[row])
        first = listed.value
        button = seen.widget("2  ")
        seen.page.get_by_text(button.label).first.click()
        wait_for(lambda: listed.value != first)
        keys.press("l")
        wait_for(lambda: seen.pixels()[:9, :9].max() < 0.4)  # a corner in which nothing is drawn
        seen.page.reload()
        seen.page.wait_for_function("document.documentElement.dataset.mantineColorScheme === 'dark'")


def _clicked_to(seen: Seen, dot: tuple[float, float, float], name: str) -> bool:
    """Whether the shape of a dot of the map has come; if not, show the map or click at the dot."""
    if seen.widget("Shape").value == name:
        return True
    if seen.drawn("/map").visible:
        seen.close_notifications()
        seen.page.mouse.click(*seen.place(dot))
    else:
        seen.page.keyboard.press("m")
    return False


def test_on_a_phone(server: Any, tmp_path: Path) -> None:
    with browser(server, "dark", 390, 844, has_touch=True, is_mobile=True, device_scale_factor=3) as seen:
        seen.drop("cloud.ply", write_cloud(tmp_path / "cloud.ply", BOX.sample(500, seed=0)).read_bytes())
        wait_for(lambda: seen.drawn(f"{PREDICTED}/body/form") is not None)
        assert seen.widget("Dark").value
        sheet = seen.page.get_by_text("Open a file, or drop it here").locator(
            "xpath=ancestor::*[contains(@style, 'position: fixed')]"
        )
        wait_for(lambda: sheet.bounding_box()["width"] == 390)
        top = sheet.bounding_box()["y"]
        assert top >= 0.57 * 844
        stands = seen.stands()
        wait_for(lambda: 0 < seen.place(np.add(stands.neighbours[-1], (0, 0, -1.3 * SMALL)))[1] < top)
        for place, radius in ((stands.true, 1.0), (stands.predicted, 1.0), *((at, SMALL) for at in stands.neighbours)):
            left, right = seen.place(np.subtract(place, (radius, 0, 0))), seen.place(np.add(place, (radius, 0, 0)))
            assert left[0] >= 0 and right[0] <= 390 and seen.place(np.add(place, (0, 0, radius)))[1] >= 0
        wait_for(lambda: seen.around(stands.true, 1.0, 1.0).max() > 0.4)  # something is drawn there
        wait_for(lambda: _tapped(seen, stands.neighbours[1]))


def _tapped(seen: Seen, place: Any) -> bool:
    """Tap at a neighbour; whether it has come."""
    came = seen.widget("Shape").value != "none"
    if not came:
        seen.page.touchscreen.tap(*seen.place(place))
    return bool(came)
