"""The 3D scene of one client: the map, and the stage on which a shape stands beside its completion and neighbours.

The stage has z upwards. Shapes stand in frames that turn about z; in a frame, "body" brings the shape's own axes
upright, so everything in it has the coordinates of the shape. Letters: N dots, C points, V vertices, F faces.
"""

from __future__ import annotations

import math
import string
from typing import Any, Literal, NamedTuple

import numpy as np
import viser
from numpy.typing import NDArray

from nepa3d.inference.explore.pictures import AXES, TURNS, Axis
from nepa3d.inference.explore.rays import Place, Ray, Up, about_z, hit, into_body, met, upright
from nepa3d.inference.explore.subject import Form

Color = tuple[int, int, int]
TRUE, PREDICTED = "/stage/true", "/stage/predicted"
PREDICTED_COLOR = (225, 130, 60)
HERE = (225, 0, 140)
SMALL = 0.42  # size of a neighbour
SEE_THROUGH = 0.3
LETTERS = string.ascii_lowercase + string.digits + "._"
FIELD_OF_VIEW = math.radians(40)  # vertical; with viser's 75 degrees what stands aside looks askew


class Layout(NamedTuple):
    """Where the shapes of a stage stand, and how much of the plane y = 0 they take."""

    true: Place
    predicted: Place
    neighbours: list[Place]
    width: float
    height: float
    middle: float
    """Height of the middle."""


def layout(count: int, aspect: float) -> Layout:
    """The places for a window of ``aspect`` (width / height) and ``count`` neighbours: the shape and its completion
    side by side over a row of neighbours or, where that would be small, rows of three.
    """
    step = 2.6 * SMALL
    true, predicted = (-1.15, 0.0, 0.0), (1.15, 0.0, 0.0)
    wide = max(4.6, count * step)
    if aspect >= wide / 4.6:
        row = [((i - (count - 1) / 2) * step, 0.0, -1.75) for i in range(count)]
        return Layout(true, predicted, row, wide, 3.7, -0.6)
    lines = math.ceil(count / 3)
    rows = [((i % 3 - 1) * 1.3 * step, 0.0, -1.75 - (i // 3) * 1.1 * step) for i in range(count)]
    bottom = -1.75 - (lines - 1) * 1.1 * step - 1.4 * SMALL
    return Layout(true, predicted, rows, 4.6, 1.1 - bottom, (1.1 + bottom) / 2)


def distance_to_fit(width: float, height: float, fov: float, aspect: float) -> float:
    """How far a camera with a vertical field of view ``fov`` stands from what it sees whole."""
    return 1.08 * max(height, width / max(aspect, 1e-3)) / 2 / math.tan(fov / 2)


class Stage:
    """What is drawn for one client."""

    def __init__(self, client: viser.ClientHandle, up: Up) -> None:
        self._client, self._scene, self._up, self._free = client, client.scene, up, 1.0
        client.camera.fov = FIELD_OF_VIEW
        self._frames: dict[str, Any] = {}
        self._angle, self._axis = 25.0, ""
        self._layout = layout(0, 1.6)
        self._scene.configure_default_lights(cast_shadow=False)  # shadows take most of a frame without a GPU
        self._map = self._scene.add_frame("/map", show_axes=False)
        self._stage = self._scene.add_frame("/stage", show_axes=False, visible=False)
        self._solid: list[Any] = []

    @property
    def on_map(self) -> bool:
        """Whether the map is what is shown."""
        return bool(self._map.visible)

    def leave_free(self, free: float) -> None:
        """Use the upper part ``free``, in (0, 1], of the window's height, as the rest is covered."""
        self._free = free
        self.show("map" if self.on_map else "stage")

    def draw_letters(self) -> None:
        """Have the browser draw most letters of captions now. It draws a few in a frame, so that a caption would come
        many frames after its shape, which without a GPU are as many seconds; those of the map are short."""
        self._scene.add_label("/letters", LETTERS, visible=False)

    def show_map(self, places: NDArray[np.float32], colors: NDArray[np.uint8]) -> None:
        """Dots of places (N, 2) and colours (N, 3)."""
        flat = np.pad(places, ((0, 0), (0, 1)))
        size = float(np.clip(0.3 / math.sqrt(len(places)), 0.004, 0.025))
        options: dict[str, Any] = {"point_shape": "circle", "point_shading": "flat", "precision": "float32"}
        self._scene.add_point_cloud("/map/dots", flat, colors, point_size=size, **options)

    def mark(self, place: NDArray[np.float32] | None, name: str) -> None:
        """Mark a place (2,) of the map; None: none of it."""
        self._scene.remove_by_name("/map/here")
        if place is not None:
            at = (float(place[0]), float(place[1]), 0.0)
            self._scene.add_icosphere("/map/here", radius=0.025, color=HERE, position=at)
            self._scene.add_label("/map/here/name", name, position=(0.0, 0.03, 0.0), anchor="bottom-center")

    def show(self, what: Literal["map", "stage"]) -> None:
        """Show one of both, and turn the camera to it."""
        self._map.visible, self._stage.visible = what == "map", what == "stage"
        camera = self._client.camera
        width, height = (2.2, 2.2) if what == "map" else (self._layout.width, self._layout.height)
        away = distance_to_fit(width, height / self._free, camera.fov, camera.aspect)
        below = (1 - self._free) * away * math.tan(camera.fov / 2)  # what is seen stands so far above the middle
        if what == "map":
            camera.up_direction, camera.position = (0.0, 1.0, 0.0), (0.0, -below, away)
            camera.look_at = (0.0, -below, 0.0)
            return
        middle = self._layout.middle - below
        camera.up_direction, camera.position = (0.0, 0.0, 1.0), (0.0, -away, middle + 0.12 * away)
        camera.look_at = (0.0, 0.0, middle)

    def arrange(self, count: int) -> None:
        """Make room for ``count`` neighbours."""
        self._layout = layout(count, self._client.camera.aspect / self._free)
        for name in list(self._frames):
            self._frames.pop(name).remove()
        self._solid.clear()
        places = {TRUE: self._layout.true, PREDICTED: self._layout.predicted}
        places |= {_near(i): place for i, place in enumerate(self._layout.neighbours)}
        for name, place in places.items():
            frame = self._scene.add_frame(name, show_axes=False, position=place, wxyz=about_z(self._angle))
            self._scene.add_frame(f"{name}/body", show_axes=False, wxyz=upright(self._up))
            self._frames[name] = frame

    def turn(self, angle: float) -> None:
        """Turn every shape of the stage about its own upright axis, to ``angle`` degrees."""
        self._angle = angle
        with self._client.atomic():
            for frame in self._frames.values():
                frame.wxyz = about_z(angle)

    def show_subject(self, form: Form, color: Color, name: str) -> None:
        """The shape."""
        self._solid.append(self._draw(f"{TRUE}/body/form", form, color, 1.0))
        self._caption("true", self._layout.true, name, 1.0)

    def show_neighbour(self, number: int, form: Form, color: Color, caption: str) -> None:
        """A neighbour, the ``number``-th."""
        self._draw(f"{_near(number)}/body/form", form, color, SMALL)
        self._caption(f"near{number}", self._layout.neighbours[number], caption, SMALL)

    def show_completion(self, vertices: NDArray[Any], faces: NDArray[Any], caption: str) -> None:
        """The completed surface, of vertices (V, 3) and faces (F, 3), which may be none."""
        name = f"{PREDICTED}/body/form"
        self._solid = [handle for handle in self._solid if handle.name != name]
        if len(faces):
            shown = self._scene.add_mesh_simple(name, vertices, faces, color=PREDICTED_COLOR, side="double")
            self._solid.append(shown)
            self._fade(shown)
        else:
            self._scene.remove_by_name(name)
        self._caption("predicted", self._layout.predicted, caption, 1.0)

    def show_context(self, points: NDArray[np.float32], colors: NDArray[np.uint8], size: float = 0.02) -> None:
        """The points (C, 3) that the model is told, in both frames."""
        options: dict[str, Any] = {"point_shape": "circle", "precision": "float32", "point_size": size}
        for frame in (TRUE, PREDICTED):
            self._scene.add_point_cloud(f"{frame}/body/context", points, colors, **options)

    def show_question(self, point: NDArray[np.float32] | None) -> None:
        """The point (3,) that is asked; None: none."""
        for frame in (TRUE, PREDICTED):
            name = f"{frame}/body/question"
            if point is not None:
                at = (float(point[0]), float(point[1]), float(point[2]))
                self._scene.add_icosphere(name, radius=0.05, color=(30, 90, 220), position=at)
            else:
                self._scene.remove_by_name(name)

    def show_cut(self, axis: Axis, at: float, true: NDArray[np.uint8], predicted: NDArray[np.uint8] | None) -> None:
        """Pictures (S, S, 4) of both fields in the plane across ``axis`` at ``at``. The shapes become see-through."""
        self._axis = axis
        position = tuple(at if name == axis else 0.0 for name in AXES)
        for frame, picture in ((TRUE, true), (PREDICTED, predicted)):
            if picture is not None:
                name = f"{frame}/body/cut"
                self._scene.add_image(name, picture, 2.0, 2.0, wxyz=TURNS[axis], position=position, cast_shadow=False)
        for handle in self._solid:
            self._fade(handle)

    def hide_cut(self) -> None:
        """No cut planes."""
        self._axis = ""
        for frame in (TRUE, PREDICTED):
            self._scene.remove_by_name(f"{frame}/body/cut")
        for handle in self._solid:
            self._fade(handle)

    def point_on(self, ray: Ray, form: Form) -> NDArray[np.float32] | None:
        """Where (3,), in the shape's coordinates, a ray of the scene hits ``form`` as it stands as the shape or as the
        completion; None if it misses both."""
        found = [
            hit(into_body(ray, at, self._angle, self._up), form) for at in (self._layout.true, self._layout.predicted)
        ]
        return next((point for point in found if point is not None), None)

    def neighbour_at(self, ray: Ray) -> int | None:
        """The number of the neighbour whose ball a ray of the scene meets; None if none."""
        return met(ray, self._layout.neighbours, SMALL)

    def _draw(self, name: str, form: Form, color: Color, scale: float) -> Any:
        if form.drawn_as_mesh:
            options: dict[str, Any] = {"color": color, "scale": scale, "side": "double", "flat_shading": True}
            shown = self._scene.add_mesh_simple(name, form.vertices, form.faces.astype(np.uint32), **options)
        else:
            options = {"point_size": 0.015 * scale, "point_shape": "circle", "scale": scale, "precision": "float32"}
            shown = self._scene.add_point_cloud(name, form.points(), np.array(color, np.uint8), **options)
        return shown

    def _fade(self, handle: Any) -> None:
        if hasattr(handle, "opacity"):
            handle.opacity = SEE_THROUGH if self._axis else None

    def _caption(self, name: str, place: Place, text: str, scale: float) -> None:
        at = (place[0], place[1], place[2] - 1.1 * scale - 0.04)
        self._scene.add_label(f"/stage/caption-{name}", text, position=at, anchor="top-center")


def _near(number: int) -> str:
    return f"/stage/near{number}"
