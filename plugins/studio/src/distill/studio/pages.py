"""The pages: what is installed, teacher beside student, runs, pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nicegui import background_tasks, run, ui

from distill.core.errors import DistillError
from distill.core.listing import plugin_json, problems
from distill.core.registry import default_registry, plural
from distill.studio import beside, graphs, jobs, runs, uploads, views

ICON = (
    '<svg viewBox="0 0 32 32" xmlns="http://www.w3.org/2000/svg"><rect width="32" height="32" rx="7" fill="#1f6feb"/>'
    '<path d="M13 6v8L7 24a2 2 0 0 0 2 3h14a2 2 0 0 0 2-3l-6-10V6" fill="none" stroke="#fff" stroke-width="2.5"/></svg>'
)
STYLE = """
body { font-family: system-ui, sans-serif }
.nicegui-content { padding: 0 }
.sheet { image-rendering: pixelated; max-width: 100%; border-radius: 6px; display: block }
.sheet[src*=".svg"] { background: #fff }
.overlay { position: fixed; inset: 0; z-index: 9000; background: #fff }
.clip { width: 192px }
.scene { width: 100%; height: 100%; border: 0 }
.panel { border: 1px solid #8883; border-radius: 10px; box-shadow: none; width: 100% }
.panel.w-auto { width: auto }
.printed { font: 12px/1.45 ui-monospace, monospace; white-space: pre; overflow: auto; max-height: 16rem; width: 100%;
  padding: .7rem; border-radius: 6px; background: #8881 }
.graph svg { max-width: 100%; height: auto; border-radius: 6px }
"""
PAGES = {"/": "Plugins", "/beside": "Teacher and student", "/runs": "Runs", "/pipelines": "Pipelines"}
COLOURS = ("#1f6feb", "#d1495b")


@dataclass
class Studio:
    """What all visitors share: the folder of runs, and one turn at what computes."""

    root: Path = Path("runs")
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def own(self) -> Path:
        """Where the studio keeps its own files."""
        return self.root / ".studio"


STUDIO = Studio()


async def working(function: Callable[..., Any], *given: Any) -> Any:
    """A result that is worked out beside the page; what went wrong is told, and None comes back."""
    try:
        async with STUDIO.turn:
            return await run.io_bound(function, *given)
    except (DistillError, OSError, ValueError) as error:
        ui.notify(str(error), type="negative", multi_line=True, close_button="close", timeout=0)
        return None


async def frame(here: str) -> ui.column:
    """What every page begins with; the column that holds the rest, which may take its time."""
    ui.colors(primary="#1f6feb")
    ui.add_css(STYLE)
    with ui.header().classes("items-center gap-8 py-2 bg-slate-900"):
        with ui.row().classes("items-center gap-2"):
            ui.html(ICON, sanitize=False).classes("w-7")
            ui.label("distill studio").classes("text-lg font-semibold")
        for path, name in PAGES.items():
            marked = "text-white border-b-2 border-blue-400" if path == here else "text-slate-300"
            ui.link(name, path).classes(f"no-underline py-1 {marked}")
        ui.space()
        ui.label(str(STUDIO.root)).classes("text-slate-400 text-sm")
    rest = ui.column().classes("w-full max-w-screen-xl mx-auto p-6 gap-4")
    await ui.context.client.connected(timeout=60)
    return rest


def table(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Named rows of numbers."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    columns = [{"name": n, "label": n, "field": n, "align": "right" if n else "left"} for n in ["", *names]]
    cells = [{"": said} | {name: _number(value) for name, value in row.items()} for said, row in rows.items()]
    ui.table(columns=columns, rows=cells, row_key="").props("flat dense").classes("panel")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# ---------------------------------------------------------------- files


def link(path: Path) -> str:
    """Where a file of the folder is read; a newer one has another address."""
    return f"/files/{quote(str(path.relative_to(STUDIO.root)))}?{path.stat().st_mtime_ns}"


def _picture(path: Path) -> None:
    ui.html(f'<img class="sheet" src="{link(path)}" alt="{path.stem}">', sanitize=False)


def _clip(path: Path) -> None:
    ui.video(link(path), controls=False, autoplay=True, muted=True, loop=True).classes("sheet clip")


def _sound(path: Path) -> None:
    ui.audio(link(path)).props("preload=metadata").classes("w-72")


def _scene(path: Path) -> None:
    async def turned() -> None:
        if (url := await working(views.view, path)) is not None:
            with ui.teleport("body"), ui.element("div").classes("overlay") as over:
                ui.element("iframe").props(f'src="{url}"').classes("scene")
                ui.button(icon="close", on_click=over.delete).props("round").classes("absolute left-4 top-4")

    if views.can_view(path):
        ui.button("Turn it", icon="3d_rotation", on_click=turned).props("outline")


MEDIA: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys((".gif", ".jpg", ".png", ".svg"), _picture),
    **dict.fromkeys((".flac", ".wav"), _sound),
    ".mp4": _clip, ".ply": _scene,
}  # fmt: skip
"""How files are shown, by the endings of their names; others are not served."""


def media(files: Iterable[Path]) -> None:
    """Files, each as what it is."""
    for path in files:
        if path.suffix in MEDIA and path.is_file():
            MEDIA[path.suffix](path)


def captioned(path: Path, caption: str) -> None:
    """A file with a line under it."""
    with ui.column().classes("gap-1 max-w-full"):
        media([path])
        ui.label(caption).classes("text-sm text-gray-500")


# ---------------------------------------------------------------- jobs


def watched(job: jobs.Job, done: Callable[[], Any] = lambda: None) -> None:
    """A command while it runs: what it prints, and a button that ends it."""
    with ui.card().classes("panel gap-2"):
        with ui.row().classes("items-center w-full"):
            ui.label(job.title).classes("font-mono text-sm grow break-all")
            state = ui.badge(job.state)
            stop = ui.button("Stop", on_click=lambda: run.io_bound(job.stop)).props("flat dense color=negative")
        said = ui.label().classes("printed")

    def look() -> None:
        text, state.text = job.text(), job.state
        if said.text != text:
            said.text = text
        if job.state != "running":
            timer.cancel()
            stop.delete()
            state.props(f"color={'positive' if job.state == 'finished' else 'negative'}")
            background_tasks.create(_told(done))

    async def _told(done: Callable[[], Any]) -> None:
        with here:
            done()

    here = ui.column().classes("w-full")
    timer = ui.timer(0.5, look)


def begin(where: ui.element, *arguments: str, done: Callable[[], Any] = lambda: None) -> None:
    """Start a command, and watch it there."""
    where.clear()
    with where:
        watched(jobs.Job.start(STUDIO.own / "jobs", *arguments), done)


# ---------------------------------------------------------------- plugins


@ui.page("/")
async def plugins_page() -> None:
    """Every plugin, what it provides, and what is wrong with it."""
    with await frame("/"):
        registry = default_registry()
        for problem in await working(problems, registry) or ():
            ui.label(problem).classes("panel p-3 bg-red-100 text-red-900")
        for record in registry.plugins():
            _plugin(plugin_json(record), record.usable)


def _plugin(told: Any, usable: bool) -> None:
    found = {kind: len(names) for kind, names in told["components"].items() if names}
    counts = ", ".join(f"{n} {kind if n == 1 else plural(kind)}" for kind, n in found.items())
    with ui.expansion().classes("panel") as fold:
        with fold.add_slot("header"), ui.row().classes("items-center w-full gap-4 no-wrap"):
            ui.badge(told["state"], color="positive" if usable else "negative")
            ui.label(told["name"]).classes("font-semibold w-24")
            ui.label(f"{told['distribution']} {told['version']}").classes("text-gray-500 w-44")
            ui.label(told["error"] or counts).classes("text-sm grow")
    fold.on_value_change(
        lambda event: _provided(fold, told) if event.value and not fold.default_slot.children else None
    )


def _provided(fold: ui.expansion, told: Any) -> None:
    registry = default_registry()
    with fold:
        for kind, names in told["components"].items():
            ui.label(plural(kind)).classes("font-semibold mt-2")
            with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-x-6 w-full"):
                for name in names:
                    with ui.row().classes("gap-2 no-wrap text-sm"):
                        ui.label(name).classes("font-mono text-blue-500 shrink-0")
                        ui.label(registry.find(kind, f"{told['name']}:{name}").component.summary)
        where = ui.column().classes("w-full mt-2")
        check = partial(begin, where, "check", told["name"])
        ui.button("Check every component", icon="rule", on_click=check).props("outline").move(target_index=0)


# ---------------------------------------------------------------- teacher and student


@ui.page("/beside")
async def beside_page(
    pair: str = "", seed: int = 0, teacher: int = 0, steps: str = "", prompt: str = "", hurried: bool = False
) -> None:
    """A teacher beside its student, from the same noises; an address that names a pair shows it at once."""
    few = tuple(int(each) for each in steps.split(",") if each.isdecimal())
    with await frame("/beside"):
        known = await working(beside.pairs, STUDIO.root, default_registry()) or {}
        if not known:
            ui.label("No pair ships with what is installed, and no run has a teacher: pip install distill-image")
            return
        with ui.card().classes("panel"), ui.row().classes("items-end w-full gap-4"):
            chosen = ui.select(known, label="teacher and student", value=pair if pair in known else next(iter(known)))
            asked = ui.element("div").classes("contents")
        results = ui.column().classes("w-full")
        wish = beside.Asked(chosen.value, seed, teacher, few, hurried, prompt)
        await _asked(wish, asked, results, at_once=pair in known)
        chosen.on_value_change(lambda event: _asked(beside.Asked(event.value), asked, results))


async def _asked(wish: beside.Asked, asked: ui.element, results: ui.column, at_once: bool = False) -> None:
    """What can be asked of a pair."""
    asked.clear()
    results.clear()
    with asked:
        ui.spinner()
    pair: beside.Pair | None = await working(beside.opened, wish.pair)
    asked.clear()
    if pair is None:
        return
    with asked:
        seeds = ui.number("seed", value=wish.seed, min=0, precision=0).classes("w-20")
        slow = ui.number(
            "teacher's steps", value=wish.teacher or pair.slow.sampler.steps, min=1, max=1000, precision=0
        ).classes("w-28")
        few = [k for k in wish.students if k in pair.steps] or pair.usual
        fast = (
            ui.select(pair.steps, label="student's steps", value=few, multiple=True)
            .classes("min-w-44")
            .props("use-chips")
        )
        fast.set_visibility(len(pair.steps) > 0)
        words = ui.input("prompt (as in the data if empty)", value=wish.prompt).classes("w-72")
        words.set_visibility(pair.reads)
        numbers = {key: ui.input(key, placeholder="as drawn").classes("w-24") for key in pair.conditions}
        both = ui.switch("teacher in as few steps", value=wish.hurried)

        async def draw() -> None:
            cond = tuple(f"{key}={box.value}" for key, box in numbers.items() if box.value)
            counts = int(seeds.value or 0), int(slow.value or 0), tuple(sorted(fast.value))
            await _answered(beside.Asked(wish.pair, *counts, both.value, words.value.strip(), cond), results)

        ui.button("Draw", icon="draw", on_click=draw)
    if at_once:
        await draw()


async def _answered(asked: beside.Asked, results: ui.column) -> None:
    results.clear()
    with results:
        with ui.row().classes("items-center"):
            ui.spinner()
            ui.label("drawing")
        found = await working(beside.shown, asked, STUDIO.own / "beside")
        results.clear()
        if found is not None:
            _beside(*found)


def _beside(folder: Path, answer: beside.Answer) -> None:
    table(answer.rows)
    for name, caption in answer.pictures.items():
        captioned(folder / name, caption)
    with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-4 w-full"):
        for way, files in answer.files.items():
            if files:
                with ui.card().classes("panel"):
                    ui.label(way).classes("font-semibold")
                    with ui.row().classes("w-full"):
                        media(folder / name for name in files)


# ---------------------------------------------------------------- runs


@ui.page("/runs")
async def runs_page(one: str = "", two: str = "") -> None:
    """The runs of the folder, live; one of them, or two side by side."""
    with await frame("/runs"):
        _start(await working(beside.demos, default_registry()) or ())
        columns = [{"name": n, "label": n, "field": n, "align": "left"} for n in COLUMNS]
        grid = ui.table(columns=columns, rows=[], row_key="name", selection="multiple", pagination=8)
        grid.props("flat dense").classes("panel")
        details = ui.column().classes("w-full")

        async def look() -> None:
            found = [_row(stand) for stand in await working(runs.runs, STUDIO.root) or ()]
            if found != grid.rows:
                grid.rows[:] = found
                grid.update()

        def chosen() -> None:
            details.clear()
            with details:
                _runs([STUDIO.root / row["name"] for row in grid.selected[-2:]])

        await look()
        grid.selected = [row for row in grid.rows if row["name"] in (one, two)]
        chosen()
        grid.on_select(chosen)
        ui.timer(3.0, look)


COLUMNS = ("name", "method", "teacher", "step", "state")


def _row(stand: runs.Stand) -> dict[str, str]:
    step = f"{stand.step:,} of {stand.of:,}" if stand.of else f"{stand.step:,}"
    state = "training" if stand.training else ""
    return {"name": stand.name, "method": stand.method, "teacher": stand.teacher, "step": step, "state": state}


def _start(demos: Iterable[str]) -> None:
    """A new run, of a recipe or of a demonstration."""
    with ui.expansion("Train", icon="add").classes("panel"):
        row, others, where = ui.row().classes("items-end w-full"), ui.row().classes("items-center w-full"), ui.column()
        where.classes("w-full")
    with row:
        recipe = ui.input("recipe, a file in YAML").classes("grow")
        changes = ui.input("changes", placeholder="method.steps=500 seed=1").classes("grow")
        name = ui.input("name of the run", value="studio")

        def train() -> None:
            begin(where, "train", recipe.value, *changes.value.split(), "-o", str(STUDIO.root / Path(name.value).name))

        ui.button("Train", icon="play_arrow", on_click=train)
    with others:
        ui.label("or a demonstration that is trained in a few minutes:").classes("text-sm text-gray-500")
        for each in demos:
            told = partial(begin, where, "demo", each, "-o", str(STUDIO.root / f"demo-{each}"))
            ui.button(each, on_click=told).props("outline dense")


def _runs(folders: list[Path]) -> None:
    if not folders:
        ui.label("Choose one run, or two to compare.").classes("text-gray-500")
        return
    with ui.element("div").classes(f"grid grid-cols-{len(folders)} gap-4 w-full"):
        for folder in folders:
            with ui.card().classes("panel"):
                ui.label(str(folder.relative_to(STUDIO.root))).classes("font-semibold")
                _progress(folder)
                with ui.expansion("What it made", icon="photo_library").classes("w-full"):
                    for path, caption in runs.made(folder):
                        captioned(path, caption)
    names = {str(folder.relative_to(STUDIO.root)): folder for folder in folders}
    if measured := {f"{n}: {way}": row for n, f in names.items() for way, row in runs.results(f).items()}:
        table(measured)
    _curves(names)


def _progress(folder: Path) -> None:
    """The pictures that a run drew while it trained; new ones appear."""
    place = ui.column().classes("w-full")
    slider = ui.slider(min=0, max=1, value=0).props("snap markers label")
    steps: list[Path] = []

    def show() -> None:
        place.clear()
        with place:
            captioned(steps[int(slider.value)], steps[int(slider.value)].stem.replace("-", " "))

    def look() -> None:
        found = runs.previews(folder)
        if len(found) > len(steps):
            steps[:] = found
            slider.props(f"max={len(found) - 1}")
            slider.set_value(len(found) - 1)
            slider.set_visibility(len(found) > 1)
            show()

    slider.set_visibility(False)
    slider.on_value_change(lambda: show() if steps else None)
    look()
    ui.timer(2.0, look)


def _curves(names: Mapping[str, Path]) -> None:
    """Every curve of some runs on axes of its own; they grow while a run trains."""
    charts: dict[str, ui.echart] = {}
    main = ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-4 w-full")
    with ui.expansion("Gradient norms").classes("panel") as fold:
        more = ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-4 w-full")

    def look() -> None:
        found = {name: runs.curves(folder) for name, folder in names.items()}
        for curve in dict.fromkeys(each for known in found.values() for each in known):
            if curve not in charts:
                with more if curve.endswith(runs.GRADIENT) else main:
                    charts[curve] = ui.echart(_axes(curve)).classes("panel h-60")
            lines = [_line(name, known.get(curve, [])) for name, known in found.items()]
            if charts[curve].options.get("series") != lines:
                charts[curve].options["series"] = lines
        fold.set_visibility(any(curve.endswith(runs.GRADIENT) for curve in charts))

    look()
    ui.timer(2.0, look)


def _axes(name: str) -> dict[str, Any]:
    grey = {"axisLabel": {"color": "#888"}, "splitLine": {"lineStyle": {"color": "#8883"}}}
    return {
        "animation": False, "color": COLOURS, "tooltip": {"trigger": "axis"}, "series": [],
        "title": {"text": name, "left": 12, "top": 8, "textStyle": {"fontSize": 13, "color": "#888"}},
        "legend": {"right": 12, "top": 8, "textStyle": {"color": "#888"}},
        "grid": {"left": 60, "right": 20, "top": 44, "bottom": 30},
        "xAxis": {"type": "value", **grey}, "yAxis": {"type": "value", "scale": True, **grey},
    }  # fmt: skip


def _line(name: str, points: list[tuple[float, float]]) -> dict[str, Any]:
    return {"name": name, "type": "line", "showSymbol": False, "data": [list(point) for point in points]}


# ---------------------------------------------------------------- pipelines


@ui.page("/pipelines")
async def pipelines_page(name: str = "") -> None:
    """A pipeline as text: checked, drawn, planned, run."""
    with await frame("/pipelines"):
        known, readers = graphs.known(STUDIO.root), await working(uploads.datasets, default_registry()) or []
        name = name if name in known else next(iter(known))
        with ui.element("div").classes("grid grid-cols-1 md:grid-cols-2 gap-4 w-full items-start"):
            with ui.card().classes("panel"):
                with ui.row().classes("items-end w-full no-wrap"):
                    chosen = ui.select(list(known), label="pipeline", value=name).classes("w-40")
                    saved = ui.input("name of the result", value=name).classes("w-40")
                    ui.space()
                    check = ui.button("Check", icon="rule").props("outline")
                    play = ui.button("Run", icon="play_arrow")
                text = ui.codemirror(known[name].read_text(encoding="utf-8"), language="YAML").classes("w-full h-96")
            with ui.column().classes("w-full"):
                plan, where = ui.column().classes("w-full"), ui.column().classes("w-full")
        results = ui.row().classes("w-full gap-6")
        with ui.expansion("Bring a picture or a sound", icon="upload_file").classes("panel"):
            _bring(text, readers)

        def chose(event: Any) -> None:
            saved.value = event.value
            text.value = graphs.known(STUDIO.root)[event.value].read_text(encoding="utf-8")

        async def checked() -> bool:
            plan.clear()
            with plan:
                told = await working(graphs.told, text.value, STUDIO.root, saved.value)
                if told is not None:
                    ui.html(told[0], sanitize=False).classes("graph w-full")
                    ui.label(told[1]).classes("printed")
            return told is not None

        async def ran() -> None:
            results.clear()
            if await checked():
                file, out = graphs.save(text.value, STUDIO.root, saved.value)
                begin(where, "pipeline", str(file), "-o", str(out), done=lambda: _made(results, out))

        chosen.on_value_change(chose)
        check.on_click(checked)
        play.on_click(ran)


def _made(results: ui.element, out: Path) -> None:
    results.clear()
    with results:
        for path in sorted(each for each in out.glob("*.*") if each.suffix in MEDIA):
            with ui.card().classes("panel w-auto max-w-lg"):
                captioned(path, path.name)


def _bring(text: ui.codemirror, datasets: list[str]) -> None:
    """A file of the visitor's, in place of a node of the pipeline."""
    ui.label("It takes the place of a node; a dataset reads it, and says what is wrong with it.").classes("text-sm")
    with ui.row().classes("items-end w-full"):
        kinds = ui.select(datasets, label="read by").classes("w-44")
        node = ui.input("in place of the node", placeholder="picture")
        seen = ui.column()

    async def brought(event: Any) -> None:
        folder = await working(uploads.keep, event.file.name, await event.file.read(), STUDIO.root / "uploads")
        said = folder and await working(uploads.node, kinds.value or "", folder, default_registry())
        changed = said and await working(graphs.replaced, text.value, node.value, said)
        if changed:
            text.value = changed
            with seen:
                media([folder.with_name(f"{folder.name}.png")])
        event.sender.reset()

    ui.upload(on_upload=brought, auto_upload=True, max_file_size=uploads.LIMIT, max_files=1).props(
        f"accept={','.join(uploads.CHECKS)} flat bordered"
    ).on("rejected", lambda: ui.notify("too large, or of another type", type="negative"))
