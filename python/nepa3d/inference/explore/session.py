"""One client: its widgets, its keys, and what it looks at."""

from __future__ import annotations

import importlib.resources
from typing import Any, Literal

import numpy as np
import viser
from viser import _messages as messages

from nepa3d.inference.explore.attention import attention
from nepa3d.inference.explore.explorer import Chosen, Explorer
from nepa3d.inference.explore.latest import Latest
from nepa3d.inference.explore.pictures import AXES, distance_colors, enlarge, field_picture, plane_points, weight_colors
from nepa3d.inference.explore.rays import Up, nearest_dot, ray
from nepa3d.inference.explore.stage import Stage
from nepa3d.inference.explore.subject import Form
from nepa3d.inference.explore.uploads import message, plain, require_size, shown_name
from nepa3d.inference.index import Neighbour
from nepa3d.models.distances import PredictedField

CUT_SIDE = 192  # pixels of a cut plane
PREDICTED_SIDE = 48  # points a side that the model is asked at for it
LISTED = 2000  # shapes that are offered by name
NONE = "none"
MEAN = "mean"
TESTED = 512  # points at which a completion is compared with the truth
SHEET = 0.42  # of the height that page.js lets the controls take on narrow screens
DARK, NARROW = "dark", "narrow"  # keys in the browser's storage


class Session:
    """The page of one client. Every callback of viser comes in some thread; what takes time is done in one of its own,
    the last request of each kind only."""

    def __init__(self, client: viser.ClientHandle, explorer: Explorer, up: Up) -> None:
        self.client, self.explorer = client, explorer
        self.stage = Stage(client, up)
        self.work = Latest(self.refuse)
        self.chosen: Chosen | None = None
        self.field: PredictedField | None = None
        self.question: Any = None
        with client.atomic():
            self._page()
            self._add_widgets()
            self._add_keys()
            self.stage.draw_letters()
            self.stage.show_map(explorer.places, explorer.colors)
            self.stage.show("map")
        client.scene.on_click()(self._clicked)
        self.work.ask("browser", self._ask_browser)

    def close(self) -> None:
        """The client is gone."""
        self.work.close()

    def refuse(self, text: str) -> None:
        """A message on the page about what cannot be done; the page goes on."""
        self.client.add_notification("Refused", message(text), color="red", with_close_button=True)

    def refuse_upload(self, filename: str, size: int) -> None:
        """An upload that is too large."""
        self.work.ask("refuse", lambda: require_size(filename, size, self.explorer.limits.most_bytes))

    def choose(self, row: int) -> None:
        """Look at a shape of the index."""
        self.work.ask("choose", lambda: self._show(self.explorer.choose(row)))

    def _page(self) -> None:
        gui = self.client.gui
        gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(62, 90, 160))
        gui.set_panel_label("nepa3d explore")
        gui.main_panel.dock_right()
        script = importlib.resources.files(__package__).joinpath("page.js").read_text(encoding="utf-8")
        self.client._websock_connection.queue_message(messages.RunJavascriptMessage(script))

    def _add_widgets(self) -> None:
        gui, explorer = self.client.gui, self.explorer
        self.where = gui.add_button_group("View", ("map", "shape"), hint="Keys M and B")
        self.where.on_click(lambda event: self._go(event.target.value))
        self.upload = gui.add_upload_button("Open a file, or drop it here", icon=viser.Icon.UPLOAD)
        self.upload.on_upload(self._uploaded)
        self.listed = None
        if len(explorer.ids) <= LISTED:
            self.listed = gui.add_dropdown("Shape", (NONE, *explorer.ids), initial_value=NONE)
            self.listed.on_update(self._listed)
        self.title = gui.add_html(heading("Click on a dot, or drop a file"))
        self.legend = gui.add_html(legend(explorer.palette))
        self.turned = gui.add_slider("Turn", 0, 360, 1, 25, visible=False, hint="Degrees; key T")
        self.turned.on_update(lambda _: self.stage.turn(self.turned.value))
        with gui.add_folder("Neighbours", visible=False) as self.near_folder:
            self.near = [gui.add_button("-", visible=False, color="gray") for _ in range(explorer.limits.neighbours)]
            for number, button in enumerate(self.near):
                button.on_click(lambda _, number=number: self._to_neighbour(number))
        self._add_model_widgets()
        self.dark = gui.add_checkbox("Dark", False, hint="Key L")
        self.dark.on_update(lambda _: self._set_theme(self.dark.value, keep=True))

    def _add_model_widgets(self) -> None:
        gui, explorer = self.client.gui, self.explorer
        most = explorer.most_context
        layers = explorer.encoder.probe.model.layers
        with gui.add_folder("Completion", visible=False) as self.completion_folder:
            start = min(most, explorer.encoder.probe.n_point // 2 or 1)
            self.n_context = gui.add_slider("Context points", 1, most, 1, start, hint="Points that the model is told")
            self.n_context.on_update(lambda _: self._complete())
            self.error = gui.add_markdown("")
        with gui.add_folder("Cut plane", visible=False) as self.cut_folder:
            self.axis = gui.add_dropdown("Across", (NONE, *AXES), initial_value=NONE, hint="Key P")
            self.axis.on_update(lambda _: self.work.ask("cut", self._show_cut))
            self.at = gui.add_slider("At", -1.0, 1.0, 0.01, 0.0)
            self.at.on_update(lambda _: self.work.ask("cut", self._show_cut))
        with gui.add_folder("Attention", visible=False) as self.attention_folder:
            self.attend = gui.add_checkbox("Show", False, hint="Click on the shape to ask there; key N")
            self.attend.on_update(lambda _: self.work.ask("attention", self._show_context))
            choices = (MEAN, *(f"{number}" for number in range(1, layers + 1)))
            self.layer = gui.add_dropdown("Layer", choices, initial_value=MEAN)
            self.layer.on_update(lambda _: self.work.ask("attention", self._show_context))

    def _add_keys(self) -> None:
        gui = self.client.gui
        keys: list[tuple[str, Any, Any]] = [
            ("Show the map", "M", lambda: self._go("map")),
            ("Back to the shape", "B", lambda: self._go("shape")),
            ("Turn by 30 degrees", "T", self._turn_on),
            ("Next cut plane", "P", self._next_cut),
            ("Attention on or off", "N", lambda: setattr(self.attend, "value", not self.attend.value)),
            ("Light or dark", "L", lambda: setattr(self.dark, "value", not self.dark.value)),
        ]
        for number in range(self.explorer.limits.neighbours):
            keys.append((f"Go to neighbour {number + 1}", f"{number + 1}", lambda n=number: self._to_neighbour(n)))
        for label, key, act in keys:
            gui.add_command(label, hotkey=key).on_trigger(lambda _, act=act: act())

    def _go(self, where: Literal["map", "shape"]) -> None:
        if where == "shape" and self.chosen is None:
            self.client.add_notification("No shape yet", "Click on a dot of the map, or drop a file.", color="blue")
            return
        self.legend.visible = where == "map"
        of_shape = (self.turned, self.near_folder, self.completion_folder, self.cut_folder, self.attention_folder)
        for shown in of_shape:
            shown.visible = where == "shape"
        with self.client.atomic():
            self.stage.show("map" if where == "map" else "stage")

    def _clicked(self, event: Any) -> None:
        pointed = ray(event.ray_origin, event.ray_direction)
        if pointed is None:
            return
        if self.stage.on_map:
            row = nearest_dot(pointed, self.explorer.places)
            if row is not None:
                self.choose(row)
            return
        near = self.stage.neighbour_at(pointed)
        if near is not None:
            self._to_neighbour(near)
        elif self.chosen is not None:
            point = self.stage.point_on(pointed, self.chosen.subject.form)
            if point is not None:
                self.question = point
                self.attend.value = True
                self.work.ask("attention", self._show_context)

    def _listed(self, _: Any) -> None:
        assert self.listed is not None
        if self.listed.value == NONE:
            return
        row = self.explorer.ids.index(self.listed.value)
        if self.chosen is None or self.chosen.row != row:
            self.choose(row)

    def _to_neighbour(self, number: int) -> None:
        if self.chosen is None or number >= len(self.chosen.neighbours):
            return
        row = self.explorer.row_of(self.chosen.neighbours[number])
        if row is None:
            self.refuse("that shape came into the index after the page was opened: start nepa3d explore again")
        else:
            self.choose(row)

    def _uploaded(self, event: Any) -> None:
        file = event.target.value
        self.work.ask("choose", lambda: self._show(self.explorer.upload(file.name, file.content)))

    def _turn_on(self) -> None:
        self.turned.value = (self.turned.value + 30) % 360

    def _next_cut(self) -> None:
        choices = (NONE, *AXES)
        self.axis.value = choices[(choices.index(self.axis.value) + 1) % len(choices)]

    def _show(self, chosen: Chosen) -> None:
        """Put a shape and its neighbours on the stage."""
        explorer, form = self.explorer, chosen.subject.form
        forms = self._forms_of(chosen)
        chosen = chosen._replace(neighbours=[near for near, _ in forms])
        self.chosen, self.question = chosen, form.points(1)[0]
        name = shown_name(chosen.subject.name) if chosen.row is None else chosen.subject.name
        with self.client.atomic():
            self.stage.arrange(len(forms))
            self.stage.show_subject(form, explorer.color_of(chosen.row), short(name))
            for number, (near, near_form) in enumerate(forms):
                color = explorer.color_of(explorer.row_of(near))
                self.stage.show_neighbour(number, near_form, color, f"{number + 1}  {near.similarity:.3f}")
                button = self.near[number]
                button.label, button.visible = f"{number + 1}  {near.similarity:.3f}  {short(plain(near.id))}", True
            for button in self.near[len(forms) :]:
                button.visible = False
            self.stage.mark(None if chosen.row is None else explorer.places[chosen.row], short(name))
        self._go("shape")
        self.title.content = heading(plain(name))
        if self.listed is not None:
            self.listed.value = NONE if chosen.row is None else explorer.ids[chosen.row]
        self._complete()

    def _forms_of(self, chosen: Chosen) -> list[tuple[Neighbour, Form]]:
        """The neighbours whose files can still be read."""
        found = []
        for near in chosen.neighbours:
            try:
                found.append((near, self.explorer.form(near.path)))
            except (ValueError, OSError) as error:
                self.refuse(str(error))
        return found

    def _complete(self) -> None:
        if self.chosen is not None:
            self.work.ask("completion", self._show_completion)

    def _show_completion(self) -> None:
        chosen = self.chosen
        assert chosen is not None
        field = self.explorer.field(chosen.subject, self.n_context.value)
        with self.explorer.model_lock:
            points = field.answers.point_xyz[:TESTED]
            off = np.abs(field.distances(points) - chosen.subject.form.true_distance(points)).mean()
        self.field = field
        self.error.content = f"Mean error of the distance: **{off:.4f}** of the shape's radius"
        self._show_context()
        with self.explorer.model_lock:
            found = self.explorer.surface(field)
        caption = f"completed from {len(field.rows)} point{'s' * (len(field.rows) > 1)}"
        if found is None:
            self.stage.show_completion(np.empty((0, 3)), np.empty((0, 3)), f"{caption}: no surface")
        else:
            self.stage.show_completion(found.vertices, found.faces, caption)
        self._show_cut()

    def _show_context(self) -> None:
        """The points that the model is told, coloured by their distance or by the attention of the question."""
        field = self.field
        if field is None:
            return
        if not self.attend.value:
            self.stage.show_context(field.context[:, :3], distance_colors(field.context[:, 3]))
            self.stage.show_question(None)
            return
        with self.explorer.model_lock:
            seen = attention(field, self.question)
        weights = seen.mean() if self.layer.value == MEAN else seen.weights[int(self.layer.value) - 1]
        self.stage.show_context(seen.points, weight_colors(weights), size=0.04)
        self.stage.show_question(self.question)

    def _show_cut(self) -> None:
        axis, at, chosen, field = self.axis.value, float(self.at.value), self.chosen, self.field
        if axis == NONE or chosen is None:
            self.stage.hide_cut()
            return
        points = plane_points(axis, at, CUT_SIDE)
        true = field_picture(chosen.subject.form.true_distance(points).reshape(CUT_SIDE, CUT_SIDE))
        self.stage.show_cut(axis, at, true, None)
        if field is not None:
            with self.explorer.model_lock:
                predicted = field.distances(plane_points(axis, at, PREDICTED_SIDE))
            smooth = enlarge(predicted.reshape(PREDICTED_SIDE, PREDICTED_SIDE), CUT_SIDE)
            self.stage.show_cut(axis, at, true, field_picture(smooth))

    def _set_theme(self, dark: bool, *, keep: bool) -> None:
        theme: dict[str, Any] = {"show_logo": False, "show_share_button": False, "brand_color": (62, 90, 160)}
        self.client.gui.configure_theme(dark_mode=dark, **theme)
        if keep:
            self.client.local_storage.set_item(DARK, f"{int(dark)}")

    def _ask_browser(self) -> None:
        """Dark where it was so the last time, or where the browser prefers it; room for the sheet of controls on narrow
        screens. page.js says both: the camera's width is in pixels of the device, of which a phone has two or three for
        one of the page."""
        try:
            dark, narrow = (self.client.local_storage.get_item(key, timeout=20) for key in (DARK, NARROW))
        except (RuntimeError, TimeoutError):  # a browser that keeps nothing
            return
        if dark == "1":
            self.dark.value = True
        if narrow == "1":
            with self.client.atomic():
                self.stage.leave_free(1 - SHEET)


def short(name: str, most: int = 26) -> str:
    """A name as it fits a button: one that is too long without its class, or else without its middle."""
    if len(name) > most:
        name = name.partition("/")[2] or name
    return name if len(name) <= most else f"{name[: most // 2 - 1]}..{name[-(most // 2 - 1) :]}"


def heading(text: str) -> str:
    """A line of HTML; the text is ``plain``."""
    return f'<div style="padding:.3em .8em;font-weight:600;overflow-wrap:anywhere">{text}</div>'


def legend(palette: dict[str, tuple[int, int, int]]) -> str:
    """The classes with their colours, as HTML; the names are ``plain``."""
    dot = '<span style="color:rgb{};font-size:1.3em">&#9679;</span>&nbsp;{}'
    entries = " ".join(
        f'<span style="white-space:nowrap;margin-right:.8em">{dot.format(color, name)}</span>'
        for name, color in palette.items()
    )
    return f'<div style="padding:.3em .8em;font-size:.85em;line-height:1.6">{entries}</div>'
