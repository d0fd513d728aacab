"""The report in a real browser: its content, its use by mouse and keyboard, and its safety."""

from __future__ import annotations

import json
import re
import shutil
import socket
from dataclasses import replace
from itertools import pairwise
from urllib.request import urlopen

import pytest

from analysis.attribution import Attribution, Interaction, StepEffect
from analysis.collection import collect
from analysis.figures.parts.style import COLOURS
from analysis.report.page import HERE, Part, render
from analysis.results import results_of
from roadmap.cli import main
from roadmap.files import write_json
from roadmap.record.folder import write_divergences
from roadmap.record.results import Divergence
from roadmap.record.run import Run
from roadmap.study.load import load_study
from roadmap.study.selection import ladder
from tests.helpers import ROOT
from tests.helpers.browser import as_opened, chromium, eventually, find, open_page, prefer_colours, press, texts
from tests.helpers.command import start_apart
from tests.helpers.records import begin, finish, study_run

# On one worker, since all tests share one browser.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"></script>{{7*7}}'\"&"
VALUES = {"pico": (90.0, 90.4, 90.2), "recipe": (91.0, 91.5, 91.1), "gelu": (89.0, 89.9, 90.1)}


def study_runs(seeds=3):
    """The runs of each rung, by its name."""
    return {rung.name: [study_run(rung, seed) for seed in range(seeds)] for rung in ladder("pico")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "runs"
    runs_by_rung = study_runs()
    for rung, values in VALUES.items():
        for run, value in zip(runs_by_rung[rung], values, strict=True):
            finish(run, out, value, epochs=4)
    begin(runs_by_rung["width"][0], out, 2)
    diverged = begin(runs_by_rung["depthwise"][0], out, 1)
    write_divergences(diverged, [Divergence(2, 3, 0.004, "nan", "stages.1")])
    return out


@pytest.fixture(scope="module")
def page(runs):
    assert main(["report", "--out", str(runs)]) == 0
    return runs / "report.html"


@pytest.fixture(scope="module")
def driver():
    with chromium() as driver:
        yield driver


@pytest.fixture
def browser(driver):
    as_opened(driver)
    yield driver
    assert driver.get_log("browser") == []


def shown_rungs(browser, table="pico-table"):
    return texts(browser, f"#{table} tbody tr:not([hidden]) > th")


def test_it_opens_from_a_file_without_the_network(browser, page):
    browser.get(page.as_uri())
    assert texts(browser, "h2")[0] == "ResNet-pico on digits"
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert {url for url in urls if not url.startswith("data:")} == {page.as_uri()}
    assert "connect-src" not in page.read_text(encoding="utf-8").partition("<style>")[0]


def test_a_script_that_is_not_the_pages_own_does_not_run(browser, page):
    browser.get(page.as_uri())
    code = "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
    assert browser.execute_script(code + "return window.ran ?? 0") == 0
    assert "Content Security Policy" in browser.get_log("browser")[0]["message"]


def test_the_table_sorts_by_mouse_and_keyboard(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    study_order = shown_rungs(browser)
    heads = browser.find_elements("css selector", "#pico-table thead th")
    accuracy = next(head for head in heads if head.text.startswith("top-1"))
    accuracy.find_element("css selector", "button").click()
    assert shown_rungs(browser)[:3] == ["gelu", "pico", "recipe"]  # rows without a number are last
    assert accuracy.get_attribute("aria-sort") == "ascending"
    press(browser, Keys.ENTER)
    assert shown_rungs(browser)[:3] == ["recipe", "pico", "gelu"]
    assert accuracy.get_attribute("aria-sort") == "descending"
    press(browser, Keys.SPACE)
    assert shown_rungs(browser)[:3] == ["gelu", "pico", "recipe"]
    heads[0].find_element("css selector", "button").click()
    assert shown_rungs(browser) == study_order and not accuracy.get_attribute("aria-sort")
    parameters = next(head for head in heads if head.text.startswith("parameters"))
    parameters.find_element("css selector", "button").click()
    cells = [row.find_elements("css selector", "td") for row in browser.find_elements("css selector", "#pico-table tr")]
    column = [head.text for head in heads].index(parameters.text) - 1
    counts = [int(float(row[column].get_attribute("data-value"))) for row in cells if row]
    assert counts == sorted(counts) and len(set(counts)) > 5


def test_the_table_filters(browser, page):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    browser.get(page.as_uri())
    count = find(browser, "[data-table=pico-table] output")
    assert count.text == "18 of 18 rungs"
    find(browser, "#pico-table-text").send_keys("Norm")
    assert shown_rungs(browser) == ["fewer-norms", "layer-norm"] and count.text == "2 of 18 rungs"
    press(browser, *[Keys.BACKSPACE] * 4)
    kind = Select(find(browser, "#pico-table-kind"))
    kind.select_by_visible_text("Macro Design")
    assert shown_rungs(browser) == ["stage-ratio", "patchify-stem"]
    kind.select_by_visible_text("better")
    assert shown_rungs(browser) == ["recipe"] and count.text == "1 of 18 rungs"


def test_a_bar_shows_its_values_by_mouse_and_keyboard(browser, page):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    tip, bar = find(browser, "#tip"), find(browser, ".bar[data-rung=recipe]")
    assert not tip.is_displayed()
    ActionChains(browser).move_to_element(bar).perform()
    assert tip.is_displayed()
    lines = tip.text.split("\n")
    facts = dict(zip(lines[1::2], lines[2::2], strict=True))
    assert lines[0] == "training recipe"
    assert facts["top-1 accuracy (%)"] == "91.20 ±0.26" and facts["runs"] == "3"
    assert facts["change from pico"] == "+1.00" and facts["verdict"] == "better"
    assert {"95 % interval", "p, corrected", "parameters", "MACs", "device-hours"} <= facts.keys()
    for name, text in facts.items():
        assert f"{name} {text}" in bar.get_attribute("aria-label")
    ActionChains(browser).move_to_element(find(browser, "h1")).perform()
    assert not tip.is_displayed()
    browser.execute_script("arguments[0].focus()", find(browser, ".bar[data-rung=pico]"))
    press(browser, Keys.TAB)
    assert tip.text.startswith("training recipe")
    press(browser, Keys.ESCAPE)
    assert not tip.is_displayed()


def test_bars_mark_rungs_not_adopted_and_diverged(browser, page):
    browser.get(page.as_uri())
    for rung in ("kernel-size-9", "kernel-size-11"):
        assert "tried" in find(browser, f".bar[data-rung={rung}]").get_attribute("class")
    assert len(browser.find_elements("css selector", ".bar.tried")) == 2
    assert find(browser, ".bar[data-rung=depthwise] .text").text == "diverged"
    assert find(browser, ".bar[data-rung=width] .text").text == "no finished run"
    assert len(browser.find_elements("css selector", ".bar rect.value")) == len(VALUES)


def test_curves_are_read_off_by_slider_and_shown_by_choice(browser, page):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select

    browser.get(page.as_uri())

    def curves():
        return len(browser.find_elements("css selector", ".plot .curve"))

    names = texts(browser, ".names label")
    assert [name.split("\n")[0] for name in names] == ["pico", "recipe", "depthwise", "width", "gelu"]
    assert eventually(curves) == 5
    slider = find(browser, "#pico-curves-epoch")
    read = find(browser, "label[class=wide] output")
    assert (read.text, names[1]) == ("4", "recipe\n84.00")
    assert names[3] == "width\n82.00 at 2"  # an unfinished run, at its last epoch
    slider.send_keys(Keys.ARROW_LEFT)
    assert read.text == "3" and texts(browser, ".names label")[1] == "recipe\n83.00"
    Select(find(browser, "#pico-curves-metric")).select_by_value("test_loss")
    assert texts(browser, ".names label")[1] == "recipe\n0.333"
    find(browser, "#pico-curve-gelu").click()
    assert curves() == 4
    find(browser, ".curves .none").click()
    assert curves() == 0
    find(browser, ".curves .all").click()
    assert curves() == 5


def test_a_rung_links_to_its_design_and_changes(browser, page):
    browser.get(page.as_uri())
    design = find(browser, "#pico-gelu")
    assert design.get_attribute("open") is None
    find(browser, "#pico-table a[href='#pico-gelu']").click()
    assert eventually(lambda: design.get_attribute("open"))
    assert "design.block.act: relu -> gelu" in design.text and "Changes from kernel-size-7" in design.text
    assert "├" in design.text and "stage 1" in design.text
    browser.execute_script("arguments[0].open = true", find(browser, "#pico-recipe"))
    assert "recipe.optimizer: sgd -> adamw" in find(browser, "#pico-recipe").text


def luminance(colour):
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# The colour and the background of every element with text of its own.
GROUNDS = """
const ground = element => {
  for (; element; element = element.parentElement) {
    const found = getComputedStyle(element).backgroundColor;
    if (!found.startsWith("rgba(0, 0, 0, 0")) return found;
  }
};
return [...document.querySelectorAll("body *")]
  .filter(each => each.checkVisibility() && [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
  .map(each => [each instanceof SVGElement ? getComputedStyle(each).fill : getComputedStyle(each).color, ground(each)]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_either_scheme(browser, attributed, scheme):
    prefer_colours(browser, scheme)
    browser.get(attributed.as_uri())
    for details in browser.find_elements("css selector", "details"):
        browser.execute_script("arguments[0].open = true", details)
    colours = {(text, ground) for text, ground in browser.execute_script(GROUNDS)}
    assert len(colours) >= 8
    for text, ground in colours:
        high, low = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {ground}"
    body = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (luminance(body) > 0.5) == (scheme == "light")


def test_chosen_colours_are_kept(browser, page):
    def is_light():
        return luminance(browser.execute_script("return getComputedStyle(document.body).backgroundColor")) > 0.5

    browser.get(page.as_uri())
    button = find(browser, "#theme")
    seen = []
    for _ in range(3):
        button.click()
        seen.append((button.text, is_light()))
    assert seen == [("Colours: light", True), ("Colours: dark", False), ("Colours: as the system", True)]
    button.click()
    button.click()
    browser.get(page.as_uri())
    assert not is_light()
    browser.execute_script("localStorage.clear()")


def test_it_works_without_storage(browser, page):
    refuse = "for (const s of ['localStorage', 'sessionStorage']) Object.defineProperty(window, s, {get() {throw new "
    script = {"source": refuse + "DOMException('refused')}})"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)
    browser.get(page.as_uri())
    find(browser, "#theme").click()
    assert find(browser, "#theme").text == "Colours: light" and texts(browser, ".names label")
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_no_width_scrolls_sideways(browser, attributed, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 400}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(attributed.as_uri())
    for details in browser.find_elements("css selector", "details"):
        browser.execute_script("arguments[0].open = true", details)
    browser.execute_script("document.querySelector('.bar').focus()")
    root = find(browser, "html")
    assert root.get_property("scrollWidth") <= root.get_property("clientWidth") <= width
    box = browser.execute_script("return arguments[0].getBoundingClientRect()", find(browser, "#tip"))
    assert box["width"] > 100 and box["left"] >= 0 and box["right"] <= width


def test_the_keyboard_reaches_everything_with_a_visible_focus(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    press(browser, Keys.TAB)
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the content" and skip.location["x"] >= 0
    seen = set()
    for _ in range(150):
        described = browser.execute_script(
            "const e = document.activeElement; return [e.id || e.className || e.tagName, "
            "getComputedStyle(e).outlineStyle]"
        )
        assert described[0] == "BODY" or described[1] != "none", described
        seen.add(described[0])
        press(browser, Keys.TAB)
    wanted = {"theme", "bar", "bar tried", "sort", "pico-table-text", "pico-table-kind", "pico-curves-epoch"}
    assert wanted | {"pico-curve-gelu", "SUMMARY", "all"} <= seen
    press(browser, Keys.HOME)
    levels = [int(heading.tag_name[1]) for heading in browser.find_elements("css selector", "h1, h2, h3, h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for landmark in ("header", "nav", "main"):
        find(browser, landmark)
    unlabelled = "return [...document.querySelectorAll('input, select')].filter(e => !e.labels.length).length"
    assert browser.execute_script(unlabelled) == 0
    ids = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    for target in browser.execute_script("return [...document.querySelectorAll('a')].map(e => e.hash.slice(1))"):
        assert target in ids


def test_the_papers_table_costs_environment_and_failures_are_shown(browser, page):
    browser.get(page.as_uri())
    published = find(browser, "#published").text
    assert "patchify-stem, gelu, layer-norm lie within the printed spread" in published
    assert "patchify-stem +0.15, spread 0.07 and 0.18; gelu +0.05, spread 0.14 and 0.14" in published
    assert "0.9 device-hours in all, for 9 finished runs" in find(browser, "#pico-section-cost").text
    row = texts(browser, "#pico-costs tbody tr")[1]
    assert row == "recipe 3 0.3 60.0 5 1"
    assert "PyTorch 2.14.1 11" in texts(browser, "#environment tbody tr")
    failed = texts(browser, "#unfinished tbody tr")
    assert failed[0].startswith("diverged pico/depthwise-s0-") and "the loss is nan in epoch 2" in failed[0]
    assert failed[1].startswith("begun pico/width-s0-") and "epoch 2 of" in failed[1]
    assert len(browser.find_elements("css selector", "#unfinished .spark")) == 1
    assert "roadmap run --ablation orders:20" in find(browser, "#pico-section-attribution").text


def test_mixed_versions_of_one_rung_are_a_warning(tmp_path):
    first, second = study_runs(2)["gelu"]
    finish(first, tmp_path, 90.0)
    other = {"versions": {"torch": "2.15.0"}, "code": {"commit": "abc", "modified": True}}
    finish(second, tmp_path, 90.0, manifest=other)
    assert main(["report", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "PyTorch: 2.14.1 and 2.15.0, in pico/gelu" in text
    assert "commit: abc and abc, modified, in pico/gelu" in text


def test_content_of_run_folders_is_shown_as_text(browser, tmp_path):
    (run, other) = study_runs(2)["gelu"]
    hostile = {
        "machine": {"host": HOSTILE, "gpu": HOSTILE},
        "versions": {"torch": HOSTILE},
        "code": {"commit": HOSTILE, "modified": True},
    }
    finish(run, tmp_path, 90.0, epochs=4, manifest=hostile)
    strange = replace(run, rung=HOSTILE.replace("/", "|"), data="{{7*7}}<b>", seed=7)
    begin(strange, tmp_path, 1, **hostile)
    begin(replace(run, rung=f"order{'9' * 40}-x", seed=8), tmp_path)
    diverged = begin(other, tmp_path, **hostile)
    write_divergences(diverged, [Divergence(1, 1, 0.1, HOSTILE, HOSTILE)])
    foreign = tmp_path / HOSTILE.replace("/", "|") / HOSTILE.replace("/", "|")
    foreign.mkdir(parents=True)
    write_json(foreign / "manifest.json", {"format": HOSTILE})
    assert main(["report", "--out", str(tmp_path)]) == 0
    open_page(browser, tmp_path / "report.html")
    assert browser.title.startswith("roadmap report")
    assert browser.execute_script("return document.images.length + document.querySelectorAll('b').length") == 0
    assert len(browser.find_elements("css selector", "script")) == 2  # the page's own, and the curves' data
    environment, failed = find(browser, "#environment").text, find(browser, "#unfinished").text
    assert environment.count(HOSTILE) >= 3 and "{{7*7}}<b>" in environment
    assert failed.count(HOSTILE) >= 2 and failed.count(HOSTILE.replace("/", "|")) >= 2
    assert "49" not in environment


def test_names_are_shown_as_text_in_title_and_curves(browser, tmp_path):
    name = "</script><script>document.title='hacked'</script>{{7*7}}".replace("/", "|")
    study = load_study()
    study = replace(study, data={**study.data, name: study.dataset("digits")})
    rungs = ladder("pico", "recipe..gelu", data=name, study=study)
    made = [(rung, Run("pico", rung.name, rung.experiment, name, study.dataset(name), 0, "paper")) for rung in rungs]
    for rung, run in made:
        finish(replace(run, rung=rung.name), tmp_path / "runs", 90.0, epochs=4)
    table = collect(tmp_path / "runs")
    hostile = [(replace(rung, name=HOSTILE, title=HOSTILE, group=HOSTILE), run) for rung, run in made[:1]]
    text = render([Part(study, results_of([*hostile, *made[1:]], table), HOSTILE)], table, tmp_path / "runs")
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    open_page(browser, tmp_path / "page.html")
    assert "hacked" in browser.title and browser.title != "hacked"
    assert texts(browser, ".names label span")[0] == HOSTILE
    assert texts(browser, "h2")[0] == f"ResNet-pico on {name}, {HOSTILE}"
    assert texts(browser, ".bar .name")[0] == HOSTILE
    assert browser.execute_script("return document.images.length") == 0


def made_attribution():
    titles = {"recipe": "training recipe", "gelu": "ReLU → GELU", "layer-norm": "BN → LN"}
    effects = (
        StepEffect("recipe", titles["recipe"], 1.5, (1.0, 2.0), 20, 1.4, 1.2, 1.6),
        StepEffect("gelu", titles["gelu"], -0.5, (-1.0, 0.1), 20, -0.4),
        StepEffect("layer-norm", titles["layer-norm"], 0.1, None, 1),
    )
    pairs = (
        Interaction("recipe", "gelu", 0.8, (0.2, 1.4), 0.012, "help"),
        Interaction("recipe", "layer-norm", -0.6, (-1.0, -0.2), 0.03, "hinder"),
        Interaction("gelu", "layer-norm", 0.05, (-0.3, 0.4), 0.9, "within noise"),
    )
    return Attribution(tuple(titles), titles, effects, pairs, 1.1)


@pytest.fixture(scope="module")
def attributed(runs):
    study = load_study()
    table = collect(runs)
    rungs = [(rung, study_runs(1)[rung.name][0]) for rung in ladder("pico")]
    part = Part(study, results_of(rungs, table), attribution=made_attribution())
    path = runs / "attributed.html"
    path.write_text(render([part], table, runs, version="of a file"), encoding="utf-8")
    return path


def test_attribution_is_a_table_and_a_map_for_arrow_keys(browser, attributed):
    from selenium.webdriver.common.keys import Keys

    browser.get(attributed.as_uri())
    assert "All steps together: +1.10" in find(browser, "#pico-section-attribution").text
    rows = [row.replace("\n", " ") for row in texts(browser, "#pico-effects tbody tr")]
    assert rows[0] == "training recipe +1.50 +1.00 to +2.00 20 +1.40 +1.20 +1.60"
    assert rows[2] == "BN → LN +0.10 1"
    cells = browser.find_elements("css selector", ".pair > span")
    assert [cell.text for cell in cells] == ["+0.80", "-0.60", "+0.05"]
    browser.execute_script("arguments[0].focus()", cells[0])
    tip = find(browser, "#tip")
    assert "verdict\nhelp" in tip.text and "+0.20 to +1.40" in tip.text
    press(browser, Keys.ARROW_DOWN)
    assert "verdict\nhinder" in tip.text
    press(browser, Keys.ARROW_RIGHT)
    assert tip.text.startswith("ReLU → GELU and BN → LN")
    assert [cell.get_attribute("tabindex") for cell in cells] == ["-1", "-1", "0"]


def test_runs_of_other_orders_are_attributed(browser, tmp_path):
    for ablation, steps in (("add-one", "gelu"), ("leave-one-out", "gelu")):
        for rung in ladder("pico", steps, ablation=ablation):
            run = study_run(rung)
            finish(run, tmp_path, 90.0 + len(rung.steps))
    assert main(["report", "--out", str(tmp_path), "--ablation", "add-one", "--steps", "gelu"]) == 0
    browser.get((tmp_path / "report.html").as_uri())
    text = find(browser, "#pico-section-attribution").text
    assert "All steps together: +1.00" in text
    assert "ReLU → GELU" in text and "roadmap run --ablation orders:20" in text


def test_a_folder_with_only_failures_has_a_report(browser, tmp_path):
    diverged = begin(study_runs(1)["gelu"][0], tmp_path)
    write_divergences(diverged, [Divergence(2, 3, 0.004, "nan", "stages.1")])
    (tmp_path / "pico" / "notes").mkdir()
    assert main(["report", "--out", str(tmp_path), "-o", str(tmp_path / "deep" / "page.html")]) == 0
    browser.get((tmp_path / "deep" / "page.html").as_uri())
    assert find(browser, ".bar[data-rung=gelu] .text").text == "diverged"
    assert "No finished run yet." in find(browser, "main").text
    assert len(texts(browser, "#unfinished tbody tr")) == 2


def test_a_folder_of_unknown_content_has_a_report(tmp_path):
    (tmp_path / "pico" / "notes").mkdir(parents=True)
    assert main(["report", "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No finished run yet." in text and "no manifest.json" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "nowhere"], "no such folder"),
        (["-o", "page.pdf"], "a report must end in .html"),
        (["--metric", "top2"], "unknown metric 'top2'"),
        (["--regime", "picco"], "did you mean 'pico'?"),
        (["--serve", "0", "-o", "page.html"], "-o does not apply to --serve"),
        (["--serve", "70000"], "--serve must be between 0 and 65535 (got 70000)"),
    ],
)
def test_bad_usage_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_other_metrics_and_ladders_have_reports(runs, tmp_path):
    path = tmp_path / "page.html"
    assert main(["report", "--out", str(runs), "--metric", "loss", "-o", str(path)]) == 0
    assert "loss on the held-out images" in path.read_text(encoding="utf-8").lower()
    assert main(["report", "--out", str(runs), "--steps", "gelu,layer-norm", "-o", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "Changes from kernel-size-7" in text and "2 of 2 rungs" in text  # although that rung is not shown


def test_a_page_of_a_whole_study_is_small(browser, tmp_path):
    for runs in study_runs(5).values():
        for run in runs:
            folder = finish(run, tmp_path, 90.0 + run.seed, epochs=0)
            lines = [
                {"epoch": i, "train_loss": 7 / i, "test_loss": 5 / i, "top1": 90 - 70 / i, "top5": 99.0, "seconds": 1.0}
                for i in range(1, 301)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["report", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").stat().st_size < 400_000
    browser.get((tmp_path / "report.html").as_uri())
    assert find(browser, "#pico-curves-epoch").get_attribute("value") == "300"
    assert texts(browser, ".names label")[1] == "recipe\n89.77"


def test_colours_are_those_of_the_drawn_figure():
    style = (HERE / "style.css").read_text(encoding="utf-8")
    assert tuple(re.findall(r"--group-\d: (#\w+);", style)) == COLOURS


class Served:
    def __init__(self, out, *arguments):
        self.process = start_apart("report", "--out", out, "--serve", *arguments, cwd=ROOT, encoding="utf-8")
        line = self.process.stdout.readline()
        self.url = line.split()[1] if line else ""

    def stop(self):
        import signal

        self.process.send_signal(signal.SIGINT)
        out, error = self.process.communicate(timeout=300)
        return self.process.returncode, out, error


@pytest.fixture
def serve():
    running = []

    def start(out, *arguments):
        running.append(Served(out, *arguments))
        return running[-1]

    yield start
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
            served.process.communicate()


def test_a_served_page_updates_and_keeps_the_readers_place(browser, serve, tmp_path):
    runs_by_rung = study_runs()
    out = tmp_path / "runs"
    finish(runs_by_rung["gelu"][0], out, 90.0)
    served = serve(out, "0")
    browser.get(served.url)
    assert find(browser, ".bar[data-rung=gelu] .text").text == "90.00"
    find(browser, "#pico-table-text").send_keys("gelu")
    browser.execute_script("document.querySelector('#pico-gelu').open = true; scrollTo(0, 700)")
    for button in browser.find_elements("css selector", "#pico-costs .sort")[1:2]:
        browser.execute_script("arguments[0].click()", button)
    folder = begin(runs_by_rung["gelu"][1], out, 1)  # half written
    (folder / "result.json").write_text("{")
    finish(runs_by_rung["gelu"][2], out, 91.0)

    def bar_text():
        return browser.execute_script("return document.querySelector('.bar[data-rung=gelu] .text')?.textContent")

    assert eventually(lambda: bar_text() == "90.50 ±0.71")
    assert find(browser, "#pico-table-text").get_attribute("value") == "gelu"
    assert shown_rungs(browser) == ["gelu"]
    assert find(browser, "#pico-gelu").get_attribute("open")
    assert browser.execute_script("return scrollY") == pytest.approx(700, abs=40)
    assert find(browser, "#pico-costs th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert "not valid JSON" in find(browser, "#unfinished").text
    status, text, error = served.stop()
    assert (status, text, error) == (130, "stopped\n", "")
    assert eventually(lambda: "No longer served" in find(browser, "#live").text)
    assert eventually(lambda: browser.get_log("browser"))  # the request that failed


def test_a_study_without_a_finished_run_is_served(serve, tmp_path):
    out = tmp_path / "runs"
    begin(study_runs()["gelu"][0], out, 2)
    served = serve(out, "0")

    def read(path=""):
        with urlopen(served.url + path) as answer:
            return answer.read().decode()

    assert "No finished run yet." in read() and "epoch 2 of" in read()
    before = read("version")
    shutil.rmtree(out)
    assert eventually(lambda: read("version") != before)
    assert "no such folder" in read()
    finish(study_runs()["gelu"][0], out, 77.25)
    assert eventually(lambda: "77.25" in read())
    assert served.stop()[0] == 130


def test_a_port_in_use_is_one_sentence(tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["report", "--out", str(tmp_path), "--serve", str(port)]) == 2
    assert capsys.readouterr().err.startswith(f"roadmap report: --serve {port}: the port is in use")
