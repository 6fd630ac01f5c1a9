"""Reports as people see them: in Chromium, wide and at 390 pixels, light and dark, with a pointer."""

from __future__ import annotations

import pytest

pytest.importorskip("selenium", reason="make test-browser")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def count(page, selector: str) -> int:
    return len(page.find_elements(By.CSS_SELECTOR, selector))


def slide_to(page, number: int) -> None:
    page.execute_script(
        "const s = document.querySelector('#rounds input[type=range]'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))",
        number,
    )


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_report_fits_its_window_and_says_nothing_in_the_console(suite, open_page, width: int, dark: bool) -> None:
    page = open_page(suite / "sgt" / "seed_0" / "report.html", width=width, dark=dark)
    assert page.get_log("browser") == []
    assert (
        page.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    )
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(25, 25, 23)" if dark else "rgb(252, 252, 250)")
    ink = page.execute_script("return getComputedStyle(document.querySelector('svg:not(.chart) text')).fill")
    assert ink == ("rgb(236, 234, 226)" if dark else "rgb(28, 28, 26)")  # the map's and the timeline's too


def test_nothing_is_fetched(suite, open_page) -> None:
    page = open_page(suite / "sgt" / "seed_0" / "report.html")
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_marks_of_every_axis_differ(suite, open_page) -> None:
    page = open_page(suite / "ftis" / "seed_0" / "report.html")
    marks = page.execute_script(
        "return [...document.querySelectorAll('svg.chart')].map("
        "s => [...s.querySelectorAll('.tick[text-anchor=end]')].map(t => t.textContent).slice(0, -1))"
    )
    assert len(marks) > 10
    assert all(len({*labels}) == len(labels) >= 2 for labels in marks)


def test_a_chart_is_read_where_the_pointer_is_and_lines_that_coincide_are_seen(suite, open_page) -> None:
    page = open_page(suite / "sgt" / "seed_0" / "report.html")
    chart = page.find_element(By.CSS_SELECTOR, "svg.chart")
    ActionChains(page).move_to_element(chart).perform()
    read = chart.find_element(By.XPATH, "..").find_element(By.CSS_SELECTOR, ".legend").text
    assert "round 25" in read
    first, second = page.execute_script(
        "const c = document.querySelector('svg.chart'); return ['c0', 'c1'].map("
        "k => getComputedStyle(c.querySelector('.line.' + k)).strokeDasharray)"
    )
    assert (first, second) == ("none", "7px, 3px")
    pieces = page.execute_script(
        "const l = document.querySelector('.legend'); return ['c0', 'c1'].map("
        "k => { const p = l.querySelector('.line.' + k);"
        " return [getComputedStyle(p).strokeDasharray, p.getBoundingClientRect().width]; })"
    )
    assert pieces == [["none", 26], ["7px, 3px", 26]]  # under the pointer too


def test_the_smoothing_can_be_taken_away(suite, open_page) -> None:
    page = open_page(suite / "sgt" / "seed_0" / "report.html")
    smooth = "[...document.querySelectorAll('.line.smooth')]"
    shown = f"return {smooth}.filter(line => getComputedStyle(line).display !== 'none').length"
    faint = "return getComputedStyle(document.querySelector('.line.raw')).opacity"  # what lies behind the smooth one
    assert page.execute_script(shown) > 5
    assert page.execute_script(faint) == "0.35"
    page.execute_script("document.querySelector('#smooth').click()")
    assert page.execute_script(shown) == 0
    assert page.execute_script(faint) == "1"


def test_every_round_is_there_with_its_groups_side_by_side_and_its_lessons(suite, open_page) -> None:
    page = open_page(suite / "sgt" / "seed_0" / "report.html")
    taught = 0
    for number in range(50):
        slide_to(page, number)
        assert page.find_element(By.ID, "round-shown").text == f"round {number}"
        assert count(page, "#rounds .task") == 5
        assert count(page, "#rounds .group") == 10
        taught += count(page, "#rounds .lesson")
    assert taught > 5
    tops = page.execute_script(
        "return [...document.querySelectorAll('.task .group')].slice(0, 2).map(g => g.getBoundingClientRect().top)"
    )
    assert tops[0] == tops[1]


def test_filters_leave_what_was_asked_for(suite, open_page) -> None:
    page = open_page(suite / "ftis" / "seed_0" / "report.html")
    slide_to(page, 3)
    by_name = {s.get_attribute("aria-label"): Select(s) for s in page.find_elements(By.CSS_SELECTOR, "#rounds select")}
    everything = count(page, "#rounds .task")
    by_name["verdict"].select_by_visible_text("none right")
    failed = count(page, "#rounds .task")
    assert failed < everything or "0 of 6 right" in page.find_element(By.ID, "rounds").text
    by_name["verdict"].select_by_visible_text("all verdicts")
    by_name["lessons"].select_by_visible_text("with a borrowed lesson")
    assert count(page, "#rounds .task") > 0
    assert all(
        t.find_elements(By.CSS_SELECTOR, ".lesson") for t in page.find_elements(By.CSS_SELECTOR, "#rounds .task")
    )
    by_name["lessons"].select_by_visible_text("with or without lessons")
    page.find_element(By.CSS_SELECTOR, "#rounds input[type=search]").send_keys("no such words")
    assert count(page, "#rounds .task") == 0


def test_a_lesson_says_who_taught_whom_and_shows_the_readers_tokens_with_their_chunks_and_ratios(
    suite, open_page
) -> None:
    page = open_page(suite / "ftis" / "seed_0" / "report.html")
    slide_to(page, 3)
    lesson = page.find_element(By.CSS_SELECTOR, "#rounds .lesson:has(details)")
    arrow = lesson.find_element(By.CSS_SELECTOR, ".arrow").text
    assert arrow in ("ada → bob", "bob → ada")
    assert "AuthorWeight" in lesson.text
    lesson.find_element(By.TAG_NAME, "summary").click()
    tokens = lesson.find_elements(By.CSS_SELECTOR, ".tok")
    assert "ratio" in tokens[0].get_attribute("title")
    assert "chunk" in tokens[0].get_attribute("title")


def test_what_a_model_wrote_is_text_and_runs_nothing(suite, open_page, tmp_path) -> None:
    html = (suite / "sgt" / "seed_0" / "report.html").read_text()
    evil = html.replace("<h2>", '<img src="x" onerror="document.title=1"><script>document.title = "2"</script><h2>', 1)
    path = tmp_path / "evil.html"
    path.write_text(evil)
    page = open_page(path)
    assert page.title == "pair/sgt/seed_0"  # the page's policy runs its own script alone
    page.get_log("browser")


def test_a_suites_page_leads_to_its_runs(suite, open_page) -> None:
    page = open_page(suite / "report.html", width=390, rounds=False)
    assert page.execute_script("return document.documentElement.scrollWidth") == 390
    page.find_element(By.LINK_TEXT, "ftis, seed 0").click()
    assert page.title == "pair/ftis/seed_0"
